"""A replica in a process of its own: does what it is told on stdin, answers on stdout.

{"do": "spend", "key": "a", "limits": {...}, "tries": 100, "prompt": 3, "most": 4}
{"do": "hold", "key": "a", "limits": {...}, "tries": 5}
{"do": "status"}
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from limit_tools import PRICES, work_of

from gateway.control.limits.book import Book
from gateway.control.limits.clock import Clock
from gateway.control.limits.limiter import Limiter
from gateway.control.limits.shared.link import RedisLink
from gateway.control.limits.shared.store import SharedStore, Timing
from gateway.control.limits.table import LimitTable, read_limits
from gateway.errors import RateLimited


async def main(url: str, replicas: int) -> None:
    timing = Timing(timeout_s=5.0, ttl_s=3.0, grace_s=1.0, heartbeat_s=0.3)
    book = Book(Clock())
    store = SharedStore(book, RedisLink(url, 10.0), "test", replicas, timing)
    limiter = Limiter(LimitTable(), PRICES, book, shared=store)
    limiter.start()
    holds: list[Any] = []
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        told = json.loads(line)
        answer: dict[str, Any] = {"up": store.up, "replicas": store.replicas, "waits": store.asked}
        if told["do"] != "status":
            answer |= await attempt(limiter, told, holds)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    await limiter.close()


async def attempt(limiter: Limiter, told: dict[str, Any], holds: list[Any]) -> dict[str, Any]:
    limits = read_limits(told["limits"], "limits")
    prompt, most = told.get("prompt", 1), told.get("most", 1)
    admitted, waits, longest = 0, [], 0.0
    for _ in range(told["tries"]):
        work = work_of(prompt, most, limits=limits, key=told["key"])
        hold = limiter.hold(work)
        began = time.perf_counter()
        try:
            await hold.__aenter__()
        except RateLimited as error:
            waits.append(error.retry_after_ms)
        else:
            admitted += 1
            if told["do"] == "hold":
                holds.append(hold)
            else:
                work.used.prompt_tokens, work.used.completion_tokens = prompt, most
                await hold.__aexit__(None, None, None)
        longest = max(longest, time.perf_counter() - began)
        await asyncio.sleep(told.get("pause", 0))
    return {"admitted": admitted, "longest_s": longest, "retry_after_ms": waits[-1:]}


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
