"""Limits of three replicas on a real Redis, whatever clients, replicas and the network do."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limit_tools import FAST, PRICES, RedisServer, until, work_of

from gateway.control.limits.book import Book
from gateway.control.limits.clock import Clock
from gateway.control.limits.limiter import Limiter
from gateway.control.limits.shared.link import LinkError, RedisLink, Reply
from gateway.control.limits.shared.store import SharedStore
from gateway.control.limits.table import LimitTable
from gateway.control.rights import Limits
from gateway.errors import RateLimited


class FaultyLink(RedisLink):
    """Fails before or after Redis has run the script, as often as it is told."""

    before = after = answered = 0

    async def call(self, keys: list[str], request: dict[str, Any]) -> Reply:
        if self.before:
            self.before -= 1
            raise LinkError("not sent")
        reply = await super().call(keys, request)
        if self.after:
            self.after -= 1
            raise LinkError("the answer was lost")
        self.answered += 1
        return reply


ENDS = st.sampled_from(["end", "cancel", "fail"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(0, 2), st.integers(1, 40), st.integers(0, 40)),
        st.tuples(ENDS, st.integers(0, 99), st.floats(0, 1), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 2), st.just(0), st.just(0)),
        st.tuples(st.sampled_from(["before", "after"]), st.integers(0, 2), st.just(0), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 60), st.just(0), st.just(0)),
    ),
    max_size=30,
)
TOKENS, REQUESTS, AT_ONCE = 240, 24, 5


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=STEPS)
def test_whatever_happens_limits_hold_and_all_is_released(
    redis: RedisServer, steps: list[tuple[str, int, float, int]]
) -> None:
    asyncio.run(play(redis, steps, uuid.uuid4().hex))


async def play(redis: RedisServer, steps: list[tuple[str, int, float, int]], prefix: str) -> None:
    """Three replicas on one loop, so that their requests meet in every order."""
    links = [FaultyLink(redis.url, 10.0) for _ in range(3)]
    books = [Book(Clock()) for _ in links]
    stores = [
        SharedStore(book, link, prefix, 3, FAST) for book, link in zip(books, links, strict=True)
    ]
    limiters = [
        Limiter(LimitTable(), PRICES, book, shared=store)
        for book, store in zip(books, stores, strict=True)
    ]
    for limiter in limiters:
        limiter.start()
    await until(lambda: all(one.up for one in stores), "every replica")
    limits = Limits(
        tokens_per_minute=TOKENS, requests_per_day=REQUESTS, concurrent_requests=AT_ONCE
    )
    running: list[tuple[Any, Any]] = []
    spent = requests = lost = 0
    day = datetime.now(UTC).date()
    for what, which, part, most in steps:
        if what == "arrive":
            work = work_of(int(part), most, limits=limits)
            hold = limiters[which].hold(work)
            try:
                await hold.__aenter__()
            except RateLimited:
                continue
            running.append((hold, work))
        elif what in ("end", "cancel", "fail") and running:
            hold, work = running.pop(which % len(running))
            error = {"end": None, "cancel": asyncio.CancelledError(), "fail": OSError()}[what]
            if what != "fail":
                work.used.prompt_tokens = work.prompt_tokens
                work.used.completion_tokens = int(work.max_tokens * part)
                requests += 1
            spent += work.used.prompt_tokens + work.used.completion_tokens
            try:
                await hold.__aexit__(type(error) if error else None, error, None)
            except (asyncio.CancelledError, OSError):
                assert error is not None
        elif what == "leave":
            # A client that goes while its request asks.
            work = work_of(1, 1, limits=limits)
            hold = limiters[which].hold(work)
            asking = asyncio.create_task(hold.__aenter__())
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait({asking})
            if not asking.cancelled() and asking.exception() is None:
                running.append((hold, work))  # a lease let it in at once
        elif what in ("before", "after"):
            setattr(links[which], what, 1)
            lost += 1
        elif what == "wait":
            await asyncio.sleep(which / 1000)
        if not lost:
            reserved = sum(work.prompt_tokens + work.max_tokens for _, work in running)
            assert spent + reserved <= TOKENS + 3 * (TOKENS // 24)
            assert requests + len(running) <= REQUESTS
            assert len(running) <= AT_ONCE
    for hold, work in running:
        work.used.prompt_tokens = work.prompt_tokens
        spent += work.prompt_tokens
        requests += 1
        await hold.__aexit__(None, None, None)
    for link in links:
        link.before = link.after = link.answered = 0
    # A call that has failed may not have been noticed yet: one has to work after it.
    await until(lambda: all(link.answered for link in links), "a call of every replica")
    await until(lambda: all(one.up for one in stores), "every replica again")
    for limiter in limiters:
        await limiter.close()
    if datetime.now(UTC).date() != day:
        return
    name = f"{{{prefix}}}:limits:key:key_a:"
    told = {
        field: sum(map(int, redis.command("HVALS", name + field) or []))
        for field in ("tokens_per_minute", "requests_per_day", "concurrent_requests")
    }
    assert told == {
        "tokens_per_minute": spent,
        "requests_per_day": requests,
        "concurrent_requests": 0,
    }
