"""What a limit costs a request: microseconds per pass through the limiter.

    .venv/bin/python tests/limits/limit_cost.py

The last two need redis-server. "leased" is a caller whose limits are large enough for leases
ahead of its requests, "asked" one whose every request asks Redis.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from limit_tools import PRICES, RedisServer, run, until, work_of

from gateway.control.limits.book import Book
from gateway.control.limits.clock import Clock
from gateway.control.limits.limiter import Limiter
from gateway.control.limits.shared.link import RedisLink
from gateway.control.limits.shared.store import SharedStore
from gateway.control.limits.table import LimitTable
from gateway.control.rights import NO_LIMITS, Limits

LARGE = Limits(requests_per_minute=10**7, tokens_per_minute=10**9, tokens_per_day=10**11)
SMALL = Limits(concurrent_requests=4, requests_per_minute=10**7)
REQUESTS = 3000


async def measure(name: str, limiter: Limiter, limits: Limits, pause_s: float) -> None:
    times = []
    for _ in range(REQUESTS):
        work = work_of(100, 100, limits=limits)
        began = time.perf_counter()
        await run(limiter, work, (100, 50))
        times.append(time.perf_counter() - began)
        await asyncio.sleep(pause_s)
    times.sort()
    p50, p99 = (times[len(times) * part // 100] * 1e6 for part in (50, 99))
    waits = limiter.shared.asked if limiter.shared is not None else 0
    print(f"{name:<10} p50 {p50:7.1f} us   p99 {p99:7.1f} us   waited for Redis {waits:5}")


async def main() -> None:
    alone = Limiter(LimitTable(), PRICES, Book(Clock()))
    await measure("unlimited", alone, NO_LIMITS, 0)
    await measure("local", alone, LARGE, 0)
    if RedisServer.binary is None:
        return
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        redis = RedisServer(Path(folder))
        redis.start()
        try:
            for name, limits in (("leased", LARGE), ("asked", SMALL)):
                book = Book(Clock())
                store = SharedStore(book, RedisLink(redis.url, 5.0), "cost", 1)
                limiter = Limiter(LimitTable(), PRICES, book, shared=store)
                limiter.start()
                await until(lambda: store.up, "Redis")  # noqa: B023 - called at once
                await measure(name, limiter, limits, 0.001)
                await limiter.close()
        finally:
            redis.kill()


asyncio.run(main())
