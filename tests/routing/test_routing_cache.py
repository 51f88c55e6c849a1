"""Answers of other servers in the cache of answers: kept whole, or not at all."""

from __future__ import annotations

from typing import Any

import pytest
from chaos_upstream import ChaosUpstream
from routing_calls import ask, last_line
from server_process import ServerProcess

ON = {"x-gateway-cache": "on"}
BYTES = "gateway_response_cache_bytes"


def state(reply: Any) -> str | None:
    value: str | None = reply.headers.get("x-gateway-cache")
    return value


@pytest.mark.parametrize("stream", [False, True])
def test_the_server_is_asked_once(
    gateway: ServerProcess, upstream: ChaosUpstream, stream: bool
) -> None:
    seed = 100 + stream
    first = ask(gateway, "plain", headers=ON, stream=stream, seed=seed)
    asked = len(upstream.requests("ok"))
    # Under another name of the model, too.
    again = ask(gateway, "gpt-4o", headers=ON, stream=stream, seed=seed)
    assert (state(first), state(again)) == ("miss", "hit")
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-gateway-model"] == "plain"
    assert len(upstream.requests("ok")) == asked
    line = last_line(gateway, again.headers["x-request-id"])
    assert (line["cache_hit"], line.get("prompt_tokens")) == (True, None)
    for other in ({"headers": {**ON, "cache-control": "no-store"}}, {}, {"headers": {}}):
        assert state(ask(gateway, "plain", stream=stream, seed=seed, **other)) is None
    assert state(ask(gateway, "plain", headers=ON, stream=stream, seed=seed + 10)) == "miss"
    assert state(ask(gateway, "v1", headers=ON, stream=stream, seed=seed)) == "miss"


@pytest.mark.parametrize(
    ("model", "stream"),
    [("resetmid", True), ("nodone", True), ("errormid", True), ("status_500", False)],
)
def test_what_broke_off_is_not_kept(gateway: ServerProcess, model: str, stream: bool) -> None:
    before = gateway.metric(BYTES)
    for _ in range(2):
        assert state(ask(gateway, model, headers=ON, stream=stream, seed=1)) == "miss"
    assert gateway.metric(BYTES) == before


def test_a_stand_in_is_not_kept_as_the_model(gateway: ServerProcess) -> None:
    before = gateway.metric(BYTES)
    replies = [ask(gateway, "short", headers=ON, seed=1) for _ in range(2)]
    assert [reply.headers["x-gateway-model"] for reply in replies] == ["long", "long"]
    assert [state(reply) for reply in replies] == ["miss", "miss"]
    assert gateway.metric(BYTES) == before
