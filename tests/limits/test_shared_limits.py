"""Limits of several replicas: real processes, a real Redis, killed and started again."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from limit_tools import FAST, PATIENCE_S, PRICES, RedisServer, run, until, work_of

from gateway.control.limits.book import Book
from gateway.control.limits.clock import Clock
from gateway.control.limits.limiter import Limiter
from gateway.control.limits.shared.link import LinkError, RedisLink, Reply
from gateway.control.limits.shared.script import SCRIPT
from gateway.control.limits.shared.store import SharedStore, Timing
from gateway.control.limits.table import LimitTable
from gateway.control.limits.windows import DAY_MS, WINDOWS
from gateway.control.rights import Limits
from gateway.errors import RateLimited

WORKER = Path(__file__).with_name("limit_worker.py")


class Replica:
    """A worker process."""

    def __init__(self, url: str, replicas: int) -> None:
        environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), url, str(replicas)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, **what: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the replica ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def replicas(redis: RedisServer) -> Iterator[list[Replica]]:
    """Three of them, which share limits already."""
    started = [Replica(redis.url, 3) for _ in range(3)]
    try:
        wait_for(started, up=True)
        yield started
    finally:
        for replica in started:
            replica.kill()


def wait_for(who: list[Replica], **state: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        heard = together(who, do="status")
        if all(state.items() <= one.items() for one in heard):
            return
        assert time.monotonic() < deadline, heard
        time.sleep(0.02)


def together(replicas: list[Replica], **what: Any) -> list[dict[str, Any]]:
    for replica in replicas:
        replica.tell(**what)
    return [replica.hear() for replica in replicas]


def test_replicas_share_limits_and_do_without_redis(
    replicas: list[Replica], redis: RedisServer
) -> None:
    def spend(key: str, limits: dict[str, int], tries: int, **more: Any) -> int:
        heard = together(replicas, do="spend", key=key, limits=limits, tries=tries, **more)
        # Nobody waits for Redis, however it is: the bound of a wait is two timeouts of 5 s.
        assert max(one["longest_s"] for one in heard) < 10
        return sum(one["admitted"] for one in heard)

    # Leases ahead of requests: at most 3 * (3000 // 24) tokens and 3 * (600 // 24) requests.
    both = {"tokens_per_minute": 3000, "requests_per_minute": 600}
    tokens = 10 * spend("a", both, 400, prompt=4, most=6)
    assert 3000 - 375 <= tokens <= 3000 + 375
    day = {"requests_per_day": 240}
    assert 240 - 30 <= spend("b", day, 200) <= 240
    few = {"requests_per_day": 5}
    assert spend("c", few, 20) == 5

    # Killed under load.
    for replica in replicas:
        replica.tell(do="spend", key="d", limits=day, tries=300, pause=0.001)
    redis.kill()
    admitted = sum(replica.hear()["admitted"] for replica in replicas)
    # What was used before, and at most the share of each after.
    assert 240 // 3 * 3 <= admitted <= 240 + 240
    wait_for(replicas, up=False, replicas=3)
    # From now on the shares alone.
    assert spend("e", day, 200) == 240
    assert spend("f", few, 20) == 3

    # The new Redis is told what was used, before and without it.
    redis.start()
    wait_for(replicas, up=True, replicas=3)
    assert spend("e", day, 50) == 0
    assert spend("c", few, 20) == 0
    assert spend("f", few, 20) == 2
    assert 240 - 30 <= spend("g", day, 200) <= 240


def test_a_killed_replica_gives_its_running_requests_back(replicas: list[Replica]) -> None:
    first, *others = replicas
    limits = {"concurrent_requests": 6}
    asked: dict[str, Any] = {"do": "hold", "key": "a", "limits": limits, "tries": 4}
    first.tell(**asked)
    assert first.hear()["admitted"] == 4
    assert sum(one["admitted"] for one in together(others, **asked)) == 2
    first.kill()
    # Its heartbeats have to be missed for a while before it counts as gone.
    more = 0
    deadline = time.monotonic() + PATIENCE_S
    while more < 4:
        assert time.monotonic() < deadline
        more += sum(one["admitted"] for one in together(others, **(asked | {"tries": 1})))
        time.sleep(0.05)
    assert more == 4
    assert sum(one["admitted"] for one in together(others, **asked)) == 0


async def test_requests_do_not_wait_for_a_task_that_failed(redis: RedisServer) -> None:
    class Defect(RedisLink):
        armed = False

        async def call(self, keys: list[str], request: dict[str, Any]) -> Reply:
            if self.armed and request["groups"]:
                self.armed = False
                return 0, 0, 1, [], []  # not what was asked for
            return await super().call(keys, request)

    book, link = Book(Clock()), Defect(redis.url, 10.0)
    store = SharedStore(book, link, "defect", 1, FAST)
    limiter = Limiter(LimitTable(), PRICES, book, shared=store)
    limiter.start()
    await until(lambda: store.up, "Redis")
    link.armed = True
    limits = Limits(concurrent_requests=1)
    await run(limiter, work_of(limits=limits), (1, 1))
    assert not link.armed
    assert store.failures == 1
    await until(lambda: store.up, "Redis again")
    await run(limiter, work_of(limits=limits), (1, 1))
    await limiter.close()


async def test_a_stop_after_a_lost_call_gives_everything_back(redis: RedisServer) -> None:
    class Lossy(RedisLink):
        loses = False

        async def call(self, keys: list[str], request: dict[str, Any]) -> Reply:
            if self.loses:
                self.loses = False
                raise LinkError("not sent")
            return await super().call(keys, request)

    def counted() -> int:
        name = "{stop}:limits:key:key_a:concurrent_requests"
        return sum(map(int, redis.command("HVALS", name) or []))

    book, link = Book(Clock()), Lossy(redis.url, 10.0)
    timing = Timing(timeout_s=5.0, ttl_s=PATIENCE_S, grace_s=0.0, retry_s=(PATIENCE_S, PATIENCE_S))
    store = SharedStore(book, link, "stop", 1, timing)
    limiter = Limiter(LimitTable(), PRICES, book, shared=store)
    limiter.start()
    await until(lambda: store.up, "Redis")
    hold = limiter.hold(work_of(limits=Limits(concurrent_requests=1)))
    await hold.__aenter__()
    await until(lambda: counted() == 1, "the request to count")
    link.loses = True
    await hold.__aexit__(None, None, None)
    await until(lambda: store.failures == 1, "the loss")
    assert counted() == 1
    await limiter.close()
    assert counted() == 0


async def test_a_redis_that_hangs_costs_one_bounded_wait(redis: RedisServer) -> None:
    book = Book(Clock())
    timing = Timing(timeout_s=0.5, grace_s=0.0, retry_s=(PATIENCE_S, PATIENCE_S))
    store = SharedStore(book, RedisLink(redis.url, 10.0), "hang", 1, timing)
    limiter = Limiter(LimitTable(), PRICES, book, shared=store)
    limiter.start()
    await until(lambda: store.up, "Redis")
    assert redis.process is not None
    redis.process.send_signal(signal.SIGSTOP)
    try:
        limits = Limits(requests_per_day=5)
        works = [run(limiter, work_of(limits=limits), (1, 1)) for _ in range(9)]
        async with asyncio.timeout(PATIENCE_S):
            ended = await asyncio.gather(*works, return_exceptions=True)
        assert ended.count(None) == 5
        assert not store.up
        waited = store.asked
        with pytest.raises(RateLimited):
            await run(limiter, work_of(limits=limits))
        assert store.asked == waited  # nobody waits any more
    finally:
        redis.process.send_signal(signal.SIGCONT)
        await limiter.close()


def test_redis_reckons_months_as_python_does(redis: RedisServer) -> None:
    lua = SCRIPT[SCRIPT.index("local function month_of") : SCRIPT.index("local function slot_of")]
    lua += "local out = {} for i, day in ipairs(ARGV) do out[i] = month_of(tonumber(day)) end "
    days = [*range(0, 60_000, 7), *range(19_000, 24_000)]
    months = redis.command("EVAL", lua + "return out", "0", *map(str, days))
    assert months == [WINDOWS["usd_per_month"].slot(day * DAY_MS) for day in days]
