"""A second server is asked when the first one is late to begin, and one answer is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from chaos_upstream import WORDS, ChaosUpstream
from routing_calls import ask, events, last_line
from server_process import ServerProcess

from gateway.relay.errors import Failed, UpstreamFault
from gateway.relay.hedge import first_of

TEXT = "".join(WORDS)
SOON = "hedge: {after: 0.05, ratio: 0.5, burst: 100}"


def model(name: str, first: str, second: str, hedge: str = SOON, times: str = "{}") -> str:
    """A model that always asks ``first`` before ``second``."""
    return f"""
- name: {name}
  policy: weighted
  {hedge}
  retries: {{most: 0}}
  targets:
  - {{base_url: "{first}", name: first, weight: 1000000, timeouts: {times}}}
  - {{base_url: "{second}", name: second, weight: 0.000001, timeouts: {times}}}
"""


@pytest.fixture(scope="module")
def server(start: Callable[..., ServerProcess], upstream: ChaosUpstream) -> ServerProcess:
    url = upstream.url
    scarce = "hedge: {after: 0.05, ratio: 0.000001, burst: 1}"
    quick = "{first_byte: 0.8}"
    lines = [
        "models:",
        model("silent", url("hang"), url("ok-second")),
        model("announced", url("hangrole"), url("ok-second")),
        model("late", url("late"), url("hang")),
        model("both", url("hang"), url("status_500"), times=quick),
        model("scarce", url("hang"), url("ok-second"), scarce, times=quick),
        model("never", url("hang"), url("ok-second"), hedge="aliases: []", times=quick),
    ]
    return start("".join(lines), SSE_PING_S="0").wait_ready()


def outcomes(server: ServerProcess, name: str) -> dict[str, float]:
    samples = server.metrics()
    return {
        outcome: count
        for outcome in ("won", "lost", "failed", "skipped")
        if (
            count := samples[
                f'gateway_hedged_requests_total{{model_name="{name}",outcome="{outcome}"}}'
            ]
        )
    }


def text_of(reply: Any, *, stream: bool) -> str:
    if not stream:
        return str(reply.json()["choices"][0]["message"]["content"])
    return "".join(e["choices"][0]["delta"].get("content", "") for e in events(reply))


@pytest.mark.parametrize(
    ("name", "first", "stream"),
    [("silent", "hang", False), ("silent", "hang", True), ("announced", "hangrole", True)],
)
def test_the_second_server_answers_and_the_first_is_let_go(
    server: ServerProcess, upstream: ChaosUpstream, name: str, first: str, stream: bool
) -> None:
    before = outcomes(server, name).get("won", 0)
    reply = ask(server, name, stream=stream)
    assert (reply.status_code, text_of(reply, stream=stream)) == (200, TEXT)
    assert reply.headers["x-gateway-target"] == "second/0"
    assert reply.headers["x-gateway-route"] == "weighted, hedge"
    assert upstream.requests(first)[-1].closed.wait(60)
    assert outcomes(server, name) == {"won": before + 1}
    line = last_line(server, reply.headers["x-request-id"])
    assert (line["hedged"], line["target"], line["attempts"]) == ("second/0", "second/0", 1)
    assert line["completion_tokens"] == 5


def test_the_first_server_may_still_win(server: ServerProcess, upstream: ChaosUpstream) -> None:
    asked = len(upstream.requests("hang"))
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(ask, server, "late")
        server.wait_for(lambda: len(upstream.requests("hang")) > asked, "the second to be asked")
        upstream.late.set()
        reply = waiting.result()
    assert text_of(reply, stream=False) == TEXT
    assert reply.headers["x-gateway-target"] == "first/0"
    assert upstream.requests("hang")[-1].closed.wait(60)
    assert outcomes(server, "late") == {"lost": 1}


def test_where_both_fail_the_first_ones_fault_is_told(server: ServerProcess) -> None:
    reply = ask(server, "both")
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "upstream_timeout")
    assert outcomes(server, "both") == {"failed": 1}


def test_the_extra_load_is_bounded(server: ServerProcess) -> None:
    assert ask(server, "scarce").status_code == 200
    assert [ask(server, "scarce").status_code for _ in range(2)] == [504, 504]
    assert outcomes(server, "scarce") == {"won": 1, "skipped": 2}


def test_it_is_off_by_default(server: ServerProcess, upstream: ChaosUpstream) -> None:
    asked = len(upstream.requests("ok-second"))
    assert ask(server, "never").status_code == 504
    assert len(upstream.requests("ok-second")) == asked
    assert 'model_name="never",outcome="won"' not in "".join(server.metrics())


def test_nothing_is_left_running(server: ServerProcess) -> None:
    samples = server.metrics()
    left = {k: v for k, v in samples.items() if "requests_outstanding" in k}
    assert set(left.values()) == {0}
    assert samples["gateway_requests_in_flight"] == 0


class Runner:
    """Stands in for an attempt: begins, or fails, when it is told to."""

    def __init__(self, fault: UpstreamFault | None = None) -> None:
        self.go = asyncio.Event()
        self.fault = fault
        self.state = "new"

    async def begin(self) -> None:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.state = "taken back"
            raise
        if self.fault is not None:
            self.state = "failed"
            raise self.fault
        self.state = "begun"

    async def drop(self) -> None:
        assert self.state == "begun"
        self.state = "dropped"


async def race(first: Runner, second: Runner) -> Any:
    return await first_of(first, 0.0, lambda: second)  # type: ignore[arg-type,return-value]


async def test_two_that_begin_at_once_leave_one() -> None:
    first, second = Runner(), Runner()
    running = asyncio.create_task(race(first, second))
    while first.state == "new" and not second.go.is_set():
        await asyncio.sleep(0.01)
        first.go.set()
        second.go.set()
    assert await running is first
    assert (first.state, second.state) in (("begun", "dropped"), ("begun", "taken back"))


async def test_a_failed_one_leaves_it_to_the_other() -> None:
    first, second = Runner(Failed("no")), Runner()
    first.go.set()
    with pytest.raises(Failed, match="no"):
        await race(first, second)
    assert second.state == "new", "a failure is no reason to hedge"
    first, second = Runner(), Runner(Failed("no"))
    second.go.set()
    running = asyncio.create_task(race(first, second))
    while second.state != "failed":
        await asyncio.sleep(0.001)
    assert not running.done()
    first.go.set()
    assert await running is first


async def test_a_client_that_leaves_ends_both() -> None:
    first, second = Runner(), Runner()
    running = asyncio.create_task(race(first, second))
    await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert first.state == "taken back"
    assert second.state in ("new", "taken back")
