"""Fetches one image over http(s), from the hosts that the operator has named.

The name is resolved once, the addresses are judged, and the connection goes to the judged
address with the name in ``Host`` and in TLS (server name and certificate): whoever answers the
next DNS query has no say any more. Redirects are not followed, proxies of the environment are
not used, and time and size are bounded as a whole.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
import ssl

import httpx

from gateway import __version__
from gateway.errors import InvalidRequest
from gateway.media.hosts import DEFAULT_PORTS, AllowedHost, IpAddress, MediaHosts

CODE = "invalid_image_url"
CONCURRENT = 16
# What stores of blobs call a content that they know nothing of.
UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream"})


class Fetcher:
    """Fetches within the operator's rules.

    Args:
        hosts: where from.
        timeout_s: for one image as a whole: name, connection, answer and content.
    """

    def __init__(self, hosts: MediaHosts, timeout_s: float) -> None:
        self._hosts = hosts
        self._timeout_s = timeout_s
        self._seats = asyncio.Semaphore(CONCURRENT)

    def check(self, url: str, path: str) -> tuple[httpx.URL, AllowedHost]:
        """The URL and what allows it. Raises InvalidRequest naming ``path``."""
        try:
            parsed = httpx.URL(url)
            host = parsed.raw_host.decode("ascii")
        except (httpx.InvalidURL, UnicodeError, ValueError):
            raise refusal(path, "it is not a URL") from None
        if parsed.userinfo:
            raise refusal(path, "a URL with a user or password is not fetched")
        if not self._hosts:
            raise refusal(
                path, "this server fetches no images; send the image as a data: URL in base64"
            )
        found = self._hosts.find(host, parsed.port)
        if found is None:
            raise refusal(
                path,
                "this server does not fetch images from that host; send the image as a data: "
                "URL in base64",
            )
        return parsed, found

    async def fetch(self, url: str, path: str, max_bytes: int) -> bytes:
        """The content behind a URL, of an image type and at most ``max_bytes`` long.

        Raises InvalidRequest naming ``path``.
        """
        parsed, entry = self.check(url, path)
        try:
            async with self._seats, asyncio.timeout(self._timeout_s):
                return await self._fetch(parsed, entry, path, max_bytes)
        except TimeoutError:
            raise refusal(path, f"it did not arrive within {self._timeout_s:g} seconds") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError, ValueError):
            raise refusal(path, "it could not be fetched") from None

    async def _fetch(self, url: httpx.URL, entry: AllowedHost, path: str, max_bytes: int) -> bytes:
        port = url.port or DEFAULT_PORTS[url.scheme]
        addresses = await resolve(entry, port)
        if not addresses:
            raise refusal(path, "its host has no address")
        if not all(self._hosts.may_connect(entry, address) for address in addresses):
            raise refusal(path, "its host lies at an address that this server does not fetch from")
        verify: ssl.SSLContext | bool = False
        if url.scheme == "https":
            verify = await asyncio.to_thread(tls_context)
        # The caller bounds the whole; these only leave time for a second address.
        limits = httpx.Timeout(2 * self._timeout_s, connect=self._timeout_s / len(addresses))
        # A client of its own for each: connections to an address are not shared between names.
        async with httpx.AsyncClient(verify=verify, trust_env=False, timeout=limits) as client:
            response = await connect(client, url, addresses)
            try:
                return await read_image(response, path, max_bytes)
            finally:
                await response.aclose()


async def connect(
    client: httpx.AsyncClient, url: httpx.URL, addresses: list[IpAddress]
) -> httpx.Response:
    """The answer of the first address that can be connected to. Raises httpx.HTTPError."""
    *others, last = [pinned(client, url, address) for address in addresses]
    for request in others:
        try:
            return await client.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            continue
    return await client.send(last, stream=True)


def pinned(client: httpx.AsyncClient, url: httpx.URL, address: IpAddress) -> httpx.Request:
    """A request that goes to ``address`` and says in every other way what ``url`` says."""
    host = url.netloc.decode("ascii")
    return client.build_request(
        "GET",
        url.copy_with(host=str(address)),
        headers={
            "Host": host,
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "User-Agent": f"llm-gateway/{__version__}",
        },
        extensions={"sni_hostname": url.raw_host.decode("ascii")},
    )


async def read_image(response: httpx.Response, path: str, max_bytes: int) -> bytes:
    """The content of an answer. Raises InvalidRequest for one that is no image or too large."""
    if response.is_redirect:
        raise refusal(path, "it redirects, and redirects are not followed; send the final URL")
    if response.status_code != 200:
        raise refusal(path, f"its host answered with status {response.status_code}")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.startswith("image/") and kind not in UNTYPED:
        raise refusal(path, "its host answered with something that is not an image")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise refusal(path, "its host answered with compressed content")
    announced = response.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:19]) > max_bytes:
        raise too_large(path, max_bytes)
    pieces: list[bytes] = []
    size = 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > max_bytes:
            raise too_large(path, max_bytes)
        pieces.append(piece)
    return b"".join(pieces)


async def resolve(entry: AllowedHost, port: int) -> list[IpAddress]:
    """Every address of a host, in the order to try them. Raises OSError."""
    if entry.address is not None:
        return [entry.address]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(entry.name, port, type=socket.SOCK_STREAM)
    # A scope such as %eth0 only comes with link-local addresses, which are refused as they are.
    texts = dict.fromkeys(str(address[4][0]).partition("%")[0] for address in found)
    return [ipaddress.ip_address(text) for text in texts]


@functools.cache
def tls_context() -> ssl.SSLContext:
    """Verifies certificates; reading the roots takes long enough to do it once."""
    return httpx.create_ssl_context(trust_env=False)


def refusal(path: str, why: str) -> InvalidRequest:
    """The error for a URL that is not fetched."""
    return InvalidRequest(f"Invalid '{path}': {why}.", param=path, code=CODE)


def too_large(path: str, max_bytes: int) -> InvalidRequest:
    """The error for images that are larger together than the server takes."""
    return refusal(path, f"the images of a request may have {max_bytes} bytes together")
