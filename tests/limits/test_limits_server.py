"""Limits as clients meet them: real gateways, real SDKs, a real Redis."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from limit_tools import RedisServer
from server_process import MESSAGES, SENTENCE, ServerProcess

from gateway.control.auth import principal_of
from gateway.settings import SettingsError, load_settings

KEYS = {name: f"key-of-{name}-0123456789" for name in ("one", "two", "three", "four")}
LIMIT = 40


def new_server(folder: Path, limits: dict[str, Any], **settings: str) -> ServerProcess:
    folder.mkdir()
    return ServerProcess(
        folder,
        options={"text": SENTENCE},
        LIMITS=json.dumps(limits),
        API_KEYS=",".join(KEYS.values()),
        **settings,
    )


def id_of(name: str) -> str:
    """The public id of a key."""
    return principal_of(hashlib.sha256(KEYS[name].encode()).digest()).id


def sdk(server: ServerProcess, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEYS[key], max_retries=0)


def test_a_limited_caller(tmp_path: Path, servers: list[ServerProcess]) -> None:
    limits = {
        "default_key": {"tokens_per_minute": 100_000},
        "keys": {
            **{id_of(name): {"requests_per_day": 2} for name in ("one", "two")},
            **{id_of(name): {"requests_per_second": 1} for name in ("three", "four")},
        },
        "models": {"bundled": {"concurrent_requests": 50}, "nobody": {"requests_per_day": 1}},
    }
    server = new_server(tmp_path / "s", limits)
    servers.append(server)
    server.wait_ready()
    client = sdk(server, "one")

    # What cannot be a request does not count; what a model answers does, streamed or not.
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="bundled", messages=[])
    raw = client.chat.completions.with_raw_response.create(model="bundled", messages=MESSAGES)
    assert raw.headers["x-ratelimit-limit-requests"] == "2"
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    assert raw.headers["x-ratelimit-limit-tokens"] == "100000"
    assert int(raw.headers["x-ratelimit-remaining-tokens"]) < 100_000
    assert list(client.completions.create(model="bundled", prompt="a", stream=True))
    with pytest.raises(openai.RateLimitError) as refused:
        client.chat.completions.create(model="bundled", messages=MESSAGES, stream=True)
    assert refused.value.code == "rate_limit_exceeded"
    assert refused.value.type == "requests"
    headers = refused.value.response.headers
    assert headers["x-should-retry"] == "false"  # not before tomorrow
    assert 0 < int(headers["retry-after"]) <= 86_400
    assert headers["x-ratelimit-remaining-requests"] == "0"

    speaker = anthropic.Anthropic(base_url=server.url, api_key=KEYS["two"], max_retries=0)
    asked: Any = {"model": "bundled", "max_tokens": 5, "messages": MESSAGES}
    answer = speaker.messages.with_raw_response.create(**asked)
    assert answer.headers["anthropic-ratelimit-requests-remaining"] == "1"
    assert "x-ratelimit-limit-requests" not in answer.headers
    speaker.messages.create(**asked)
    with pytest.raises(anthropic.RateLimitError) as turned_away:
        speaker.messages.create(**asked)
    assert turned_away.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index]

    scope = 'gateway_rate_limited_total{limit="requests_per_day",scope="key"}'
    assert server.metric(scope) == 2
    outcome = 'gateway_requests_total{outcome="shed",route="/v1/messages"}'
    assert server.metric(outcome) == 1
    warned = [line for line in server.log_lines() if line.get("model") == "nobody"]
    assert warned
    assert "bundled" in warned[0]["served"]

    wait_for_what_nobody_waits_for(server)
    server.signal()
    server.wait_exit()
    kept = json.loads((tmp_path / "s" / "data" / "limits.json").read_text())
    days = {entry[1]: sum(entry[3].values()) for entry in kept if entry[2] == "requests_per_day"}
    assert days[id_of("one")] == days[id_of("two")] == 2


def wait_for_what_nobody_waits_for(server: ServerProcess) -> None:
    """Lines of a batch and background responses wait until their window lets them in."""
    client = sdk(server, "three")
    lines = [
        {
            "custom_id": str(number),
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": "bundled", "prompt": "a", "max_tokens": 2},
        }
        for number in range(2)
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("in.jsonl", text), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/completions", completion_window="24h"
    )
    runs = [
        sdk(server, "four").responses.create(model="bundled", input="a", background=True)
        for _ in range(2)
    ]

    def all_done() -> bool:
        done = [sdk(server, "four").responses.retrieve(run.id).status for run in runs]
        return done == ["completed"] * 2 and client.batches.retrieve(batch.id).status == "completed"

    server.wait_for(all_done, "every piece of work to be done")
    counts = client.batches.retrieve(batch.id).request_counts
    assert counts is not None
    assert (counts.completed, counts.failed) == (2, 0)


def test_two_gateways_share_a_limit(
    tmp_path: Path, servers: list[ServerProcess], redis: RedisServer
) -> None:
    limits = {"default_key": {"requests_per_day": LIMIT}}
    shared = {"REDIS_URL": redis.url, "REDIS_TIMEOUT_S": "5", "LIMITS_REPLICAS": "2"}
    servers += [new_server(tmp_path / f"s{n}", limits, **shared) for n in range(2)]
    for server in servers:
        server.wait_ready()
        server.wait_for(lambda s=server: s.metric("gateway_redis_up") == 1, "Redis")  # type: ignore[misc]

    def spend(key: str, tries: int) -> int:
        """How many of so many requests, spread over both gateways at once, are answered."""

        def one(number: int) -> int:
            url = f"{servers[number % 2].url}/v1/completions"
            auth = {"authorization": f"Bearer {KEYS[key]}"}
            body = {"model": "bundled", "prompt": "a", "max_tokens": 1}
            reply = http.post(url, json=body, headers=auth)
            assert reply.status_code in (200, 429), reply.text
            assert reply.status_code == 200 or "retry-after" in reply.headers
            return reply.status_code == 200

        with httpx.Client(timeout=60) as http, ThreadPoolExecutor(8) as pool:
            return sum(pool.map(one, range(tries)))

    # A day has no leases from another one, so there is nothing above the limit. Requests that
    # are refused while leases lie idle leave less.
    most_idle = 2 * (LIMIT // (8 * 2))
    assert LIMIT - most_idle <= spend("one", 2 * LIMIT) <= LIMIT

    redis.kill()
    # Each gateway goes on with its half; none waits and none fails.
    assert LIMIT - 2 <= spend("two", 3 * LIMIT) <= LIMIT
    assert [server.metric("gateway_redis_up") for server in servers] == [0, 0]
    assert [server.metric("gateway_limit_replicas") for server in servers] == [2, 2]

    redis.start()
    for server in servers:
        server.wait_for(lambda s=server: s.metric("gateway_redis_up") == 1, "Redis again")  # type: ignore[misc]
    # The new Redis has been told what was used before and without it.
    assert spend("two", LIMIT) == 0
    assert spend("one", LIMIT) <= most_idle
    assert LIMIT - most_idle <= spend("three", 2 * LIMIT) <= LIMIT


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"limits": "{"}, "LIMITS: not JSON"),
        ({"limits": '{"models":{"m":{"rpm":1}}}'}, "LIMITS: 'models.m.rpm' is unknown"),
        ({"redis_url": "localhost:6379"}, "REDIS_URL: a URL is needed"),
        ({"redis_prefix": "{a}"}, "REDIS_PREFIX"),
    ],
)
def test_wrong_settings_are_told(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load_settings(**settings)


def test_the_password_of_redis_is_not_shown() -> None:
    assert "hunter2" not in repr(load_settings(redis_url="redis://:hunter2@localhost"))
