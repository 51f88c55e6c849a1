"""The gateway under a real Ray Serve. The tests are the life of one cluster, in this order."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event
from typing import Any

import httpx
import openai
from ray_serve_cluster import KEY, PATIENCE_S, Cluster

PATH = "/v1/chat/completions"
STORY: Any = [{"role": "user", "content": "Tell me a story"}]
CHAT: Any = {"model": "bundled", "messages": STORY, "stream": True}
RUNNING = 'vllm:num_requests_running{engine="0",model_name="stuck"}'
CANCELLED = f'gateway_requests_total{{outcome="cancelled",route="{PATH}"}}'


@contextmanager
def stream_under_way(cluster: Cluster) -> Iterator[Future[list[str]]]:
    """A long answer, the first events of which are there."""
    begun = Event()
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(read_stream, cluster, begun)
        assert begun.wait(PATIENCE_S)
        yield stream


def read_stream(cluster: Cluster, begun: Event | None = None, tokens: int = 1900) -> list[str]:
    """The data of an answer's events; tells when the first ones are there."""
    events = []
    body = CHAT | {"max_tokens": tokens, "ignore_eos": True}
    with httpx.stream(
        "POST", cluster.url + PATH, json=body, headers=cluster.headers, timeout=PATIENCE_S
    ) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))
            if begun is not None and len(events) == 5:
                begun.set()
    return events


def assert_whole(events: list[str]) -> None:
    """An answer to the last token that was asked for."""
    assert events[-1] == "[DONE]"
    reasons = [json.loads(event)["choices"][0]["finish_reason"] for event in events[:-1]]
    assert reasons[-1] == "length"


def test_every_field_of_the_config_means_something(cluster: Cluster) -> None:
    assert cluster.understood() == cluster.config


def test_the_sdk_streams_an_answer(cluster: Cluster) -> None:
    client = openai.OpenAI(base_url=f"{cluster.url}/v1", api_key=KEY, max_retries=0)
    assert "bundled" in [model.id for model in client.models.list()]
    with client.chat.completions.create(**CHAT, max_tokens=32) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_a_token_comes_at_once_and_a_client_that_leaves_frees_the_engine(
    cluster: Cluster,
) -> None:
    before = cluster.metrics().get(CANCELLED, 0)
    with httpx.stream(
        "POST",
        cluster.url + PATH,
        json=CHAT | {"model": "stuck"},
        headers=cluster.headers,
        timeout=PATIENCE_S,
    ) as response:
        events = (line for line in response.iter_lines() if line)
        while "content" not in (event := next(events)) or '"content":""' in event:
            pass  # nothing comes after the one token that ends this loop
        assert cluster.metrics()[RUNNING] == 1
    cluster.wait_for(
        lambda: cluster.metrics().get(CANCELLED, 0) == before + 1, "the request to be cancelled"
    )
    assert cluster.metrics()[RUNNING] == 0


def test_the_front_names_the_request_and_callers_need_a_key(cluster: Cluster) -> None:
    url, headers = cluster.url + PATH, {"x-request-id": "req-of-mine"}
    refused = httpx.post(url, json=CHAT, headers=headers)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    answered = httpx.post(
        url, json=CHAT | {"stream": False, "max_tokens": 2}, headers=headers | cluster.headers
    )
    assert answered.headers.get_list("x-request-id") == ["req-of-mine"]
    unknown = httpx.get(f"{cluster.url}/nowhere", headers=cluster.headers)
    assert unknown.json()["error"]["code"] == "unknown_url"


def test_a_new_version_takes_over_once_streams_have_ended(cluster: Cluster) -> None:
    (old,) = cluster.replicas()
    with stream_under_way(cluster) as stream:
        (gateway,) = cluster.config["applications"][0]["deployments"]
        environment = gateway["ray_actor_options"]["runtime_env"]["env_vars"]
        environment["SERVED_MODEL_NAME"] = "renamed,bundled"
        cluster.deploy()
        assert_whole(stream.result(PATIENCE_S))
    cluster.wait_for(lambda: "renamed" in cluster.models(), "the new version")
    cluster.wait_for(lambda: old not in cluster.replicas(), "the old version to end")


def test_load_brings_a_replica_and_takes_nothing_from_anybody(cluster: Cluster) -> None:
    deadline = time.monotonic() + PATIENCE_S
    with ThreadPoolExecutor(8) as pool:
        streams: list[Future[list[str]]] = []
        while len(cluster.replicas()) < 2:
            assert time.monotonic() < deadline, cluster.log.read_text()[-6000:]
            if sum(not stream.done() for stream in streams) < 8:
                streams.append(pool.submit(read_stream, cluster, tokens=400))
            time.sleep(0.1)
        wait(streams)
    for stream in streams:
        assert_whole(stream.result())


def test_a_killed_replica_is_replaced(cluster: Cluster) -> None:
    body = CHAT | {"stream": False, "max_tokens": 2}
    first, *_ = known = cluster.replicas()
    os.kill(first, signal.SIGKILL)

    def is_replaced() -> bool:
        return first not in cluster.replicas() and len(set(cluster.replicas()) | set(known)) > 2

    def answers() -> bool:
        reply = httpx.post(cluster.url + PATH, json=body, headers=cluster.headers, timeout=60)
        return reply.status_code == 200

    cluster.wait_for(is_replaced, "another replica in its place")
    cluster.wait_for(lambda: all(answers() for _ in range(10)), "answers one after the other")


def test_the_end_waits_for_a_stream(cluster: Cluster) -> None:
    with stream_under_way(cluster) as stream:
        cluster.config["applications"] = []
        cluster.deploy()
        assert_whole(stream.result(PATIENCE_S))
    cluster.wait_for(lambda: not cluster.replicas(), "the replicas to end")
