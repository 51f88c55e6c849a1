"""Images by URL: from listed hosts, from judged addresses, within bounds."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from media_host import MediaHost, encoded, media_host, picture, sends

from gateway.errors import InvalidRequest
from gateway.media import fetch as fetch_module
from gateway.media.fetch import Fetcher, pinned
from gateway.media.hosts import MediaHosts

PNG = encoded(picture(1))
PATH = "messages[0].content[1].image_url.url"
LARGE = 2**20
LOOPBACK = ("127.0.0.0/8", "::1/128")


@pytest.fixture
def host() -> Iterator[MediaHost]:
    with media_host() as found:
        found.routes["/a.png"] = sends(PNG)
        yield found


def fetcher(host: MediaHost, *names: str, networks: Any = (), timeout_s: float = 60.0) -> Fetcher:
    listed = [f"{name}:{host.port}" for name in names or ("127.0.0.1",)]
    return Fetcher(MediaHosts(listed, networks), timeout_s)


async def refused(fetching: Fetcher, url: str, max_bytes: int = LARGE) -> str:
    with pytest.raises(InvalidRequest) as caught:
        await fetching.fetch(url, PATH, max_bytes)
    assert (caught.value.param, caught.value.code) == (PATH, "invalid_image_url")
    return caught.value.message


class Names:
    """Stands in for DNS: answers of a name, one per question."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: list[list[str]]) -> None:
        self.answers = answers
        self.asked: list[str] = []
        loop = asyncio.get_running_loop()
        real = loop.getaddrinfo

        async def look_up(host: Any, port: Any, **options: Any) -> Any:
            name = host.decode() if isinstance(host, bytes) else host
            label = name.partition(".")[0]
            if label not in answers:
                return await real(host, port, **options)
            self.asked.append(name)
            found = answers[label].pop(0)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in found]

        monkeypatch.setattr(loop, "getaddrinfo", look_up)


async def test_a_listed_host_is_fetched_from(host: MediaHost) -> None:
    assert await fetcher(host).fetch(host.url("/a.png"), PATH, LARGE) == PNG
    host.routes["/untyped"] = sends(PNG, "application/octet-stream")
    assert await fetcher(host).fetch(host.url("/untyped"), PATH, len(PNG)) == PNG


async def test_other_hosts_are_not_even_asked(host: MediaHost) -> None:
    local = fetcher(host)
    for url in (
        host.url("/a.png", "localhost"),
        host.url("/a.png", "127.0.0.2"),
        host.url("/a.png", "0x7f000001"),
        host.url("/a.png", "2130706433"),
        host.url("/a.png", "user:word@127.0.0.1"),
        host.url("/a.png", f"127.0.0.1:{host.port}@example.com"),
        "http://127.0.0.1/a.png",
        f"http://127.0.0.1:{host.port + 1}/a.png",
        "http://",
        "http://[::1/a",
        "http://exa mple/",
        "https://\udc80.example/",
    ):
        await refused(local, url)
    assert host.seen == []
    message = await refused(Fetcher(MediaHosts(()), 5.0), host.url("/a.png"))
    assert "data: URL" in message


async def test_redirects_are_not_followed(host: MediaHost) -> None:
    for status in (301, 302, 303, 307, 308):
        host.routes["/away"] = sends(PNG, status=status, Location=host.url("/a.png"))
        assert "redirect" in await refused(fetcher(host), host.url("/away"))
    assert {path for path, _ in host.seen} == {"/away"}


async def test_bad_answers_are_refused(host: MediaHost) -> None:
    host.routes |= {
        "/html": sends(PNG, "text/html"),
        "/json": sends(b"{}", "application/json"),
        "/error": sends(PNG, status=500),
        "/zipped": sends(PNG, Content_Encoding="gzip"),
    }
    for path in ("/html", "/json", "/error", "/zipped", "/nothing"):
        await refused(fetcher(host), host.url(path))
    closed = fetcher(host)
    host.close()
    assert "could not be fetched" in await refused(closed, host.url("/a.png"))


async def test_a_huge_body_is_cut_off(host: MediaHost) -> None:
    sent = 0

    def endless(handler: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        handler.send_response(200)
        handler.send_header("Content-Type", "image/png")
        handler.end_headers()
        try:
            while not host.released.is_set():
                handler.wfile.write(bytes(2**16))
                sent += 2**16
        except OSError:
            pass

    host.routes |= {"/endless": endless, "/announced": sends(b"", Content_Length="9" * 30)}
    assert f"{LARGE} bytes" in await refused(fetcher(host), host.url("/endless"))
    await refused(fetcher(host), host.url("/announced"))
    # What had been sent on its way when the connection was closed, and no more.
    assert sent < 64 * LARGE
    assert "bytes" in await refused(fetcher(host), host.url("/a.png"), len(PNG) - 1)


async def test_a_slow_host_is_given_up(host: MediaHost) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "image/png")
        handler.end_headers()
        try:
            while not host.released.wait(0.05):
                handler.wfile.write(b"x")
        except OSError:
            pass

    def silent(handler: BaseHTTPRequestHandler) -> None:
        host.released.wait()

    host.routes |= {"/drip": drip, "/silent": silent}
    impatient = fetcher(host, timeout_s=0.5)
    for path in ("/drip", "/silent"):
        assert "0.5 seconds" in await refused(impatient, host.url(path))


async def test_names_that_lead_inside_are_refused(
    host: MediaHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed = ["93.184.216.34", "127.0.0.1"]
    names = Names(monkeypatch, inside=[["127.0.0.1"], mixed, []])
    outside = fetcher(host, "inside.example")
    for _ in range(2):
        message = await refused(outside, host.url("/a.png", "inside.example"))
        assert "address" in message
        assert "127" not in message
    await refused(outside, host.url("/a.png", "inside.example"))
    assert names.asked == ["inside.example"] * 3
    assert host.seen == []


async def test_what_was_judged_is_what_is_connected_to(
    host: MediaHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The second answer would lead elsewhere; nobody asks for it.
    names = Names(monkeypatch, rebound=[["127.0.0.1"], ["192.0.2.1"], ["192.0.2.1"]])
    url = host.url("/a.png", "rebound.example")
    assert await fetcher(host, "rebound.example", networks=LOOPBACK).fetch(url, PATH, LARGE) == PNG
    assert names.asked == ["rebound.example"]
    assert host.seen == [("/a.png", f"rebound.example:{host.port}")]


async def test_the_next_address_is_tried(host: MediaHost, monkeypatch: pytest.MonkeyPatch) -> None:
    # Nothing listens at the first.
    Names(monkeypatch, several=[["127.0.0.9", "127.0.0.1"]])
    url = host.url("/a.png", "several.example")
    assert await fetcher(host, "several.example", networks=LOOPBACK).fetch(url, PATH, LARGE) == PNG


async def test_tls_asks_for_the_name_and_not_the_address() -> None:
    url = httpx.URL("https://cdn.example.com:8443/a%20b.png?x=%2F#part")
    async with httpx.AsyncClient(trust_env=False) as client:
        request = pinned(client, url, ipaddress.ip_address("2001:db8::1"))
    assert str(request.url.host) == "2001:db8::1"
    assert request.headers["host"] == "cdn.example.com:8443"
    assert request.extensions["sni_hostname"] == "cdn.example.com"
    assert request.url.raw_path == b"/a%20b.png?x=%2F"


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS for a server of this name, and for clients that trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    chain, secret = folder / "cert.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain, secret)
    return server, ssl.create_default_context(cafile=str(chain))


async def test_certificates_are_those_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, trusting = certificate(tmp_path, "secure.example")
    monkeypatch.setattr(fetch_module, "tls_context", lambda: trusting)
    Names(monkeypatch, secure=[["127.0.0.1"]], other=[["127.0.0.1"]])
    with media_host(server) as host:
        host.routes["/a.png"] = sends(PNG)
        fetching = fetcher(host, "secure.example", "other.example", networks=LOOPBACK)
        url = host.url("/a.png", "secure.example").replace("http:", "https:")
        assert await fetching.fetch(url, PATH, LARGE) == PNG
        assert host.seen == [("/a.png", f"secure.example:{host.port}")]
        await refused(fetching, url.replace("secure", "other"))
        assert len(host.seen) == 1


async def test_proxies_of_the_environment_are_not_used(
    host: MediaHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert await fetcher(host).fetch(host.url("/a.png"), PATH, LARGE) == PNG


def test_the_roots_are_read_once() -> None:
    assert fetch_module.tls_context() is fetch_module.tls_context()
