"""Keys: everything is closed that is not on the list of open paths, and nothing leaks."""

import hashlib
import hmac
import json

import httpx
import openai
import pytest
from server_process import NewServer, ServerProcess
from starlette.routing import Route

from gateway.app import build_app
from gateway.control import auth
from gateway.control.auth import ANONYMOUS, Keyring, salt_for
from gateway.errors import InvalidApiKey
from gateway.settings import Settings
from gateway.state import new_state

FIRST = "planted-secret-key-number-one"
SECOND = "planted-secret-key-number-two"
CANARY = "the-prompt-canary-should-stay-private"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE")


@pytest.fixture
def locked(shared_server: NewServer) -> ServerProcess:
    return shared_server(options={"text": CANARY}, API_KEYS=f"{FIRST},{SECOND}", LOG_LEVEL="debug")


async def known_paths() -> tuple[set[str], frozenset[str]]:
    """Every path that has a route, some that have none, and those of them that need no key."""
    edge = build_app(new_state(Settings(_env_file=None)))
    routes = {route.path for route in edge.cold.routes if isinstance(route, Route)}
    assert {"/metrics", "/docs", "/openapi.json", "/v1/models", "/health/live"} <= routes
    extra = {"/", "/nope", "/v1/", "//v1/models", "/health/", "/health/live/../../metrics"}
    return routes | set(edge.hot) | extra, edge.open_paths


async def test_default_deny_on_every_route_and_method(locked: ServerProcess) -> None:
    async with httpx.AsyncClient(base_url=locked.url, timeout=60) as http:
        paths, open_paths = await known_paths()
        for path in sorted(paths):
            for method in METHODS:
                reply = await http.request(method, path.replace("{model_id:path}", "bundled"))
                if path in open_paths:
                    assert reply.status_code in (200, 405), (method, path)
                    continue
                assert reply.status_code == 401, (method, path)
                assert reply.headers["www-authenticate"] == "Bearer"
                if method != "HEAD":
                    error = reply.json()["error"]
                    assert error["type"] == "authentication_error"
                    assert error.get("code", "invalid_api_key") == "invalid_api_key"


def test_both_headers_and_both_keys_open(locked: ServerProcess) -> None:
    for headers in (
        {"authorization": f"Bearer {FIRST}"},
        {"authorization": f"bearer {SECOND}"},
        {"x-api-key": FIRST},
    ):
        assert httpx.get(f"{locked.url}/v1/models", headers=headers).status_code == 200
    for headers in (
        {"authorization": f"Basic {FIRST}"},
        {"authorization": FIRST},
        {"authorization": "Bearer"},
        {"authorization": f"Bearer {FIRST}x"},
        {"authorization": f"Bearer {FIRST},{SECOND}"},
        {"x-api-key": FIRST[:-1]},
        {"x-api-key": hashlib.sha256(FIRST.encode()).hexdigest()},
        {"cookie": f"key={FIRST}"},
    ):
        assert httpx.get(f"{locked.url}/v1/models", headers=headers).status_code == 401
    assert httpx.get(f"{locked.url}/v1/models?api_key={FIRST}").status_code == 401
    with pytest.raises(openai.AuthenticationError) as caught:
        openai.OpenAI(base_url=f"{locked.url}/v1", api_key="wrong").models.list()
    assert caught.value.code == "invalid_api_key"


def test_a_named_host_is_fine_with_keys(locked: ServerProcess) -> None:
    headers = {"host": "llm.example", "x-api-key": FIRST}
    assert httpx.get(f"{locked.url}/v1/models", headers=headers).status_code == 200
    headers["host"] = "llm.example/health/live?"
    assert httpx.get(f"{locked.url}/v1/models", headers=headers).status_code == 403


def test_nothing_private_is_logged_or_shown(locked: ServerProcess) -> None:
    prompts = (
        {"messages": [{"role": "user", "content": CANARY}]},
        {"messages": [{"role": "user", "content": CANARY}], "stream": True},
        {"messages": [{"role": "user", "content": CANARY}], "temperature": CANARY},
        {"messages": [{"role": "user", "content": CANARY}], "max_tokens": 10**6},
        {"messages": [{"role": CANARY, "content": "x"}]},
    )
    shown = ""
    for body in prompts:
        for key in (FIRST, FIRST + "-wrong"):
            reply = httpx.post(
                f"{locked.url}/v1/chat/completions?x={CANARY}",
                json=body,
                headers={"authorization": f"Bearer {key}"},
                timeout=60,
            )
            if reply.status_code != 200:
                shown += reply.text
    httpx.post(
        f"{locked.url}/v1/chat/completions",
        content=json.dumps(CANARY)[:-1],
        headers={"x-api-key": FIRST, "content-type": "application/json"},
    )
    for path in ("/metrics", "/version", "/openapi.json", "/v1/models"):
        shown += httpx.get(f"{locked.url}{path}", headers={"x-api-key": FIRST}).text
    locked.wait_for(lambda: len(locked.log_lines()) >= len(prompts) * 2, "the log")
    for text in (shown, locked.logs()):
        assert CANARY not in text
        assert "planted-secret" not in text
    lines = [line for line in locked.log_lines() if line["message"] == "request"]
    assert {line["key"] for line in lines} >= {
        "anonymous",
        Keyring([FIRST]).identify({b"x-api-key": FIRST.encode()}).id,
    }


def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    original = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return original(one, other)

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    keyring = Keyring([FIRST, SECOND])
    keyring.identify({b"x-api-key": FIRST.encode()})
    assert len(compared) == 2
    with pytest.raises(InvalidApiKey):
        keyring.identify({b"x-api-key": b"wrong"})
    assert len(compared) == 4
    assert all(len(one) == len(other) == 32 for one, other in compared)


def test_salts_separate_keys_and_requests() -> None:
    keyring = Keyring([FIRST, SECOND])
    one = keyring.identify({b"x-api-key": FIRST.encode()})
    two = keyring.identify({b"x-api-key": SECOND.encode()})
    salts = [salt_for(one, None), salt_for(two, None), salt_for(one, "a"), salt_for(two, "a")]
    assert len(set(salts)) == 4
    assert salt_for(one, "a") == salt_for(one, "a")
    assert salt_for(ANONYMOUS, None) is None
    assert FIRST not in repr((one, two, keyring))
    assert FIRST not in repr(Settings(_env_file=None, api_keys=FIRST))
