"""Runs several prompts on an engine at once, as one stream of deltas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing

from engine.base import Delta, EngineOverloaded

# How long a later prompt of an admitted call waits for a place in the engine's queue.
PATIENCE_S = 60.0
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
# Deltas waiting for a slow reader; beyond it they pile up, merged, in the engine.
QUEUED_DELTAS = 64

Start = Callable[[int], AsyncGenerator[Delta, None]]


def run_prompts(start: Start, count: int, most: int) -> AsyncGenerator[tuple[int, Delta], None]:
    """Yield the deltas of all prompts as they come, each with its prompt's position.

    At most ``most`` prompts are with the engine at a time, begun in order. Closing the
    generator closes every running one and waits for that.

    Args:
        start: begins a prompt by its position; what it returns is closed here.

    Raises what those generators raise. EngineOverloaded counts only until the first delta:
    later prompts of a call that has begun wait for their turn.
    """
    return _one(start) if count == 1 else _Runs(start, count).deltas(min(most, count))


async def _one(start: Start) -> AsyncGenerator[tuple[int, Delta], None]:
    async with aclosing(start(0)) as deltas:
        async for delta in deltas:
            yield 0, delta


class _Runs:
    """The prompts of one call.

    What arrives in the queue: a delta with its prompt's position, None for a prompt that has
    ended, or the exception that ends everything.
    """

    def __init__(self, start: Start, count: int) -> None:
        self._start = start
        self._unfinished = count
        self._todo: Iterator[int] = iter(range(count))
        self._queue: asyncio.Queue[tuple[int, Delta] | Exception | None] = asyncio.Queue(
            QUEUED_DELTAS
        )
        self._begun = False

    async def deltas(self, workers: int) -> AsyncGenerator[tuple[int, Delta], None]:
        tasks = [asyncio.create_task(self._work()) for _ in range(workers)]
        try:
            while self._unfinished:
                item = await self._queue.get()
                if isinstance(item, Exception):
                    raise item
                if item is None:
                    self._unfinished -= 1
                else:
                    self._begun = True
                    yield item
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self) -> None:
        try:
            for position in self._todo:
                await self._run(position)
                await self._queue.put(None)
        except Exception as error:
            await self._queue.put(error)

    async def _run(self, position: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        pause = FIRST_PAUSE_S
        while True:
            try:
                # An engine refuses at the first step, so nothing is sent twice.
                async with aclosing(self._start(position)) as deltas:
                    async for delta in deltas:
                        await self._queue.put((position, delta))
                return
            except EngineOverloaded:
                if not self._begun or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
