"""The cache of whole answers: for whom, for how long, and never anything broken."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from server_process import NewServer, ServerProcess

from gateway.control.response_cache.cache import AnswerCache, Stored
from gateway.control.response_cache.wish import Policy

KEY_A, KEY_B = "key-a-0123456789abcdef", "key-b-0123456789abcdef"
CHAT = "/v1/chat/completions"
ON = {"x-gateway-cache": "on"}
HELLO: dict[str, Any] = {
    "model": "bundled",
    "messages": [{"role": "user", "content": "hello"}],
    "max_tokens": 8,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("cache")
    running = ServerProcess(
        folder,
        API_KEYS=f"{KEY_A},{KEY_B}",
        LOG_LEVEL="warning",
        RESPONSE_CACHE_MAX_ENTRIES="500",
    )
    yield running.wait_ready()
    running.kill()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"x-api-key": KEY_A}, timeout=60) as http:
        yield http


def ask(client: httpx.Client, body: dict[str, Any], path: str = CHAT, **headers: str) -> Any:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post(path, json=body, headers=ON | names)
    assert answer.status_code == 200, answer.text
    return answer


def state(answer: httpx.Response) -> str | None:
    return answer.headers.get("x-gateway-cache")


def test_the_same_request_gets_the_same_answer(client: httpx.Client) -> None:
    body = HELLO | {"seed": 1}
    first = ask(client, body)
    # Order of fields and what cannot matter make no difference.
    again = ask(client, dict(reversed(body.items())) | {"user": "somebody", "metadata": {"a": "b"}})
    assert (state(first), state(again)) == ("miss", "hit")
    assert again.content == first.content
    assert again.headers["x-gateway-model"] == first.headers["x-gateway-model"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert int(again.headers["age"]) >= 0
    assert state(ask(client, body | {"max_tokens": 7})) == "miss"


def test_a_stream_comes_back_as_the_same_stream(client: httpx.Client) -> None:
    body = HELLO | {"seed": 2, "stream": True, "stream_options": {"include_usage": True}}
    first, again = ask(client, body), ask(client, body)
    assert (state(first), state(again)) == ("miss", "hit")
    assert again.text == first.text
    assert again.text.endswith("data: [DONE]\n\n")
    assert again.headers["content-type"] == first.headers["content-type"]
    whole = ask(client, HELLO | {"seed": 2})
    assert state(whole) == "miss"


def test_completions_too(client: httpx.Client) -> None:
    for stream in (False, True):
        body = {"model": "bundled", "prompt": ["a", "b"], "max_tokens": 4, "stream": stream}
        first, again = (ask(client, body, "/v1/completions") for _ in range(2))
        assert (state(first), state(again)) == ("miss", "hit")
        assert again.content == first.content


def test_nobody_gets_the_answers_of_another_key(client: httpx.Client) -> None:
    body = HELLO | {"seed": 3}
    assert state(ask(client, body)) == "miss"
    assert state(ask(client, body, x_api_key=KEY_B)) == "miss"
    assert state(ask(client, body, x_api_key=KEY_B)) == "hit"
    assert state(ask(client, body | {"cache_salt": "other"})) == "miss"


def test_cache_control_is_honoured(client: httpx.Client) -> None:
    body = HELLO | {"seed": 4}
    assert state(ask(client, body, cache_control="no-store")) is None
    assert state(ask(client, body)) == "miss"
    assert state(ask(client, body, cache_control="no-store")) is None
    first = ask(client, body, cache_control="max-age=600")
    assert state(first) == "hit"
    fresh = ask(client, body, cache_control="no-cache")
    assert state(fresh) == "miss"
    assert fresh.json()["id"] != first.json()["id"]
    assert ask(client, body).json()["id"] == fresh.json()["id"]
    assert state(ask(client, body, cache_control="max-age=0")) == "miss"


def test_only_who_asks(client: httpx.Client) -> None:
    body = HELLO | {"seed": 5}
    plain = [client.post(CHAT, json=body) for _ in range(2)]
    assert [state(answer) for answer in plain] == [None, None]
    assert state(ask(client, body, x_gateway_cache="off")) is None
    assert state(ask(client, body)) == "miss"
    refused = client.post(CHAT, json=body, headers={"x-gateway-cache": "maybe"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "x-gateway-cache")


def test_errors_and_broken_answers_are_not_kept(client: httpx.Client) -> None:
    wrong = HELLO | {"seed": 6, "model": "nobody"}
    for _ in range(2):
        answer = client.post(CHAT, json=wrong, headers=ON)
        assert (answer.status_code, state(answer)) == (404, None)
    body = HELLO | {"seed": 6, "stream": True, "max_tokens": 3000, "ignore_eos": True}
    with client.stream("POST", CHAT, json=body, headers=ON) as answer:
        next(answer.iter_lines())
    assert state(ask(client, body | {"max_tokens": 3000})) == "miss"


def test_a_hit_is_counted_as_one_that_cost_nothing(
    server: ServerProcess, client: httpx.Client
) -> None:
    body = HELLO | {"seed": 7}
    before = server.metrics()
    answers = [ask(client, body) for _ in range(3)]
    after = server.metrics()
    assert [state(answer) for answer in answers] == ["miss", "hit", "hit"]
    hits = 'gateway_response_cache_lookups_total{result="hit"}'
    tokens = "vllm:generation_tokens_total"
    assert after[hits] - before[hits] == 2
    made = answers[0].json()["usage"]["completion_tokens"]
    assert after[tokens] - before[tokens] == made


def test_repeatable_requests_are_cached_unasked_where_that_is_set(new_server: NewServer) -> None:
    server = new_server(RESPONSE_CACHE="model:tiny-chat", RESPONSE_CACHE_MAX_AGE_S="0.5")
    with httpx.Client(base_url=server.wait_ready().url, timeout=60) as client:

        def states(body: dict[str, Any], **headers: str) -> list[str | None]:
            return [state(client.post(CHAT, json=body, headers=headers)) for _ in range(2)]

        assert states(HELLO) == [None, None]
        first = client.post(CHAT, json=HELLO | {"temperature": 0})
        assert state(first) == "miss"
        assert states(HELLO | {"seed": 1}, **{"cache-control": "no-store"}) == [None, None]
        deadline = time.monotonic() + 60
        # It grows old, and is made anew.
        while client.post(CHAT, json=HELLO | {"temperature": 0}).json() == first.json():
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_cache_is_bounded_in_number_bytes_and_age() -> None:
    cache = AnswerCache(Policy(), 64 * 1024, 10, max_age_s=3600)
    for number in range(30):
        cache.put(b"%d" % number, Stored(b"x" * 10, "m", time.monotonic()))
        cache.get(b"20", 1e9)
    assert len(cache) == 10
    assert cache.get(b"20", 1e9) is not None  # used all the time
    assert cache.get(b"19", 1e9) is None
    assert cache.get(b"29", 1e9) is not None
    for number in range(100):
        cache.put(b"large%d" % number, Stored(b"x" * 8000, "m", time.monotonic()))
        assert cache.bytes <= 64 * 1024
    cache.put(b"too large", Stored(b"x" * 8193, "m", time.monotonic()))
    assert cache.get(b"too large", 1e9) is None
    cache.put(b"old", Stored(b"x", "m", time.monotonic() - 3601))
    assert cache.get(b"old", 1e9) is None
    before = cache.bytes
    cache.put(b"large99", Stored(b"y" * 8000, "m", time.monotonic()))
    assert cache.bytes == before
