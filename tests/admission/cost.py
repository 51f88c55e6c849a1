"""What admission costs per request, in CPU time: ``python tests/admission/cost.py``."""

from __future__ import annotations

import asyncio
import contextlib
import time

from test_admission_guard import Setting

from gateway.control.gate import Gate
from gateway.errors import ServerOverloaded

REQUESTS = 20_000
RUNS = 5


async def pass_through(setting: Setting, gate: Gate) -> float:
    """Microseconds per request that finds room at once."""
    best = float("inf")
    for _ in range(RUNS):
        works = [setting.work() for _ in range(REQUESTS)]
        began = time.thread_time()
        for work in works:
            async with gate.enter(work):
                pass
        best = min(best, (time.thread_time() - began) / REQUESTS)
    return best * 1e6


async def wait_in_line(count: int = 5000) -> float:
    """Microseconds per request that waits, its task included."""
    setting = Setting(1, max_queue=count)

    async def one() -> None:
        async with setting.gate.enter(setting.work()):
            pass

    began = time.thread_time()
    async with setting.gate.enter(setting.work()):
        tasks = [asyncio.create_task(one()) for _ in range(count)]
        await setting.is_true(lambda: setting.controller.waiting == count)
    await asyncio.gather(*tasks)
    return (time.thread_time() - began) / count * 1e6


async def be_refused(count: int = 5000) -> float:
    """Microseconds per request that finds the queue full."""
    setting = Setting(1, max_queue=10)
    never = asyncio.Event()
    others = [asyncio.create_task(setting.run(setting.work(), never)) for _ in range(11)]
    await setting.is_true(lambda: setting.controller.waiting == 10)
    began = time.thread_time()
    for _ in range(count):
        with contextlib.suppress(ServerOverloaded):
            async with setting.gate.enter(setting.work()):
                pass
    spent = time.thread_time() - began
    for other in others:
        other.cancel()
    await asyncio.wait(others)
    return spent / count * 1e6


async def main() -> None:
    setting = Setting(64)
    added = await pass_through(setting, setting.gate) - await pass_through(setting, Gate())
    print(f"room at once: {added:.1f} us")
    print(f"waits: {await wait_in_line():.1f} us")
    print(f"refused: {await be_refused():.1f} us")


if __name__ == "__main__":
    asyncio.run(main())
