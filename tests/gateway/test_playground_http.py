"""The pages as responses: what they allow, what they weigh, and that they open nothing else."""

import re
from importlib.resources import files

import httpx
import pytest
from server_process import NewServer, ServerProcess

from gateway.app import build_app
from gateway.http.edge import OPEN_PATHS
from gateway.settings import Settings
from gateway.state import new_state
from gateway.web.assets import has_current

KEY = "planted-secret-key-number-one"
MOST_BYTES = 64 * 1024


def pages(**settings: str) -> frozenset[str]:
    edge = build_app(new_state(Settings(_env_file=None, **settings)))  # type: ignore[arg-type]
    return edge.open_paths - OPEN_PATHS


def test_pages_and_assets_have_their_headers(server: ServerProcess) -> None:
    paths = pages()
    assert paths >= {"/", "/docs", "/playground/main.js", "/playground/style.css"}
    weight = 0
    with httpx.Client(base_url=server.url) as http:
        for path in sorted(paths):
            got = http.get(path)
            assert got.status_code == 200
            assert not got.history
            policy = dict(
                part.strip().split(" ", 1)
                for part in got.headers["content-security-policy"].split(";")
            )
            assert policy["default-src"] == "'none'"
            assert policy["script-src"] == policy["style-src"] == "'self'"
            assert policy["connect-src"] == "'self'"
            assert policy["frame-ancestors"] == policy["form-action"] == "'none'"
            assert policy["base-uri"] == "'none'"
            assert not re.search("unsafe|https?:|[*]", got.headers["content-security-policy"])
            assert got.headers["x-content-type-options"] == "nosniff"
            assert got.headers["referrer-policy"] == "no-referrer"
            assert got.headers["cache-control"] == "no-cache"
            kind = {"js": "text/javascript", "css": "text/css"}.get(path[-3:].lstrip("."))
            assert got.headers["content-type"] == f"{kind or 'text/html'}; charset=utf-8"
            assert not re.search(r"https?://|//cdn", got.text), path
            weight += len(got.content)

            head = http.head(path)
            assert head.status_code == 200
            assert head.content == b""
            assert head.headers["content-length"] == str(len(got.content))
            same = http.get(path, headers={"if-none-match": f'"other", W/{got.headers["etag"]}'})
            assert same.status_code == 304
            assert same.content == b""
            assert same.headers["etag"] == got.headers["etag"]
            assert http.get(path, headers={"if-none-match": '"other"'}).status_code == 200
            refused = http.post(path, json={})
            assert refused.status_code == 405
            assert refused.json()["error"]["code"] == "method_not_supported"
        for path in ("/playground/", "/playground/index.html", "/playground/%2e%2e/assets.py"):
            assert http.get(path).status_code == 404
    assert weight < MOST_BYTES


def test_a_key_is_needed_for_all_but_the_pages(shared_server: NewServer) -> None:
    locked = shared_server(API_KEYS=KEY)
    with httpx.Client(base_url=locked.url) as http:
        for path in pages():
            assert http.get(path).status_code == 200
        for path in (
            *("/v1/models", "/openapi.json", "/metrics", "/version", "/redoc", "/nope"),
            *("/docs/", "/playground", "/playground/", "/playground/nope.js", "/%2f"),
            *("/playground/../v1/models", "/playground/%2e%2e/metrics", "/playground/main.js/"),
        ):
            assert http.get(path).status_code == 401, path


def test_switched_off_there_are_no_pages(new_server: NewServer) -> None:
    assert not pages(playground="false")
    server = new_server(PLAYGROUND="false").wait_ready()
    with httpx.Client(base_url=server.url) as http:
        for path in pages():
            assert http.get(path).status_code == 404
        assert http.get("/openapi.json").status_code == 200
    assert "playground" not in server.out.read_text()


def test_the_banner_names_the_page(server: ServerProcess) -> None:
    assert f"chat     {server.url}/  (the playground" in server.out.read_text()


@pytest.mark.parametrize("path", sorted(OPEN_PATHS))
def test_probes_answer_head(server: ServerProcess, path: str) -> None:
    reply = httpx.head(f"{server.url}{path}")
    assert reply.status_code == 200
    assert reply.content == b""


def test_no_file_is_left_behind() -> None:
    served = {path.rpartition("/")[2] for path in pages()} | {"index.html", "docs.html"}
    folder = {entry.name for entry in files("gateway.web.static").iterdir()}
    assert {name for name in folder if not name.startswith("__")} <= served
    for name in served - {"", "docs"}:
        text = files("gateway.web.static").joinpath(name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


@pytest.mark.parametrize(
    ("header", "current"),
    [("", False), ("*", True), ('"a"', True), ('W/"a"', True), ('"b", "a"', True), ('"ab"', False)],
)
def test_if_none_match(header: str, current: bool) -> None:
    assert has_current(header, '"a"') is current
