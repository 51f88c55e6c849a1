"""Two servers asked for the same answer, and the one kept that begins first.

Hedged requests as in Dean and Barroso, "The Tail at Scale" (CACM 56(2), 2013).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.relay.attempt import Attempt

Another = Callable[[], Attempt | None]


async def first_of(attempt: Attempt, after_s: float, another: Another) -> Attempt:
    """The attempt that begins first: this one or, where it has not begun after ``after_s``
    seconds, the one that ``another`` gives. The other one is taken back.

    Raises the fault of ``attempt`` when none begins.
    """
    racing = {asyncio.create_task(attempt.begin()): attempt}
    won: Attempt | None = None
    try:
        done, _ = await asyncio.wait(racing, timeout=after_s)
        if not done and (second := another()) is not None:
            racing[asyncio.create_task(second.begin())] = second
        while won is None and (waiting := [task for task in racing if not task.done()]):
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            won = _begun(racing)
        won = won or _begun(racing)
    finally:
        await _take_back({task: one for task, one in racing.items() if one is not won})
    if won is None:
        next(iter(racing)).result()  # raises its fault
    return won or attempt


def _begun(racing: dict[asyncio.Task[None], Attempt]) -> Attempt | None:
    for task, attempt in racing.items():
        if task.done() and not task.cancelled() and task.exception() is None:
            return attempt
    return None


async def _take_back(losers: dict[asyncio.Task[None], Attempt]) -> None:
    for task, attempt in losers.items():
        if not task.cancel() and not task.cancelled() and task.exception() is None:
            await attempt.drop()
    if running := [task for task in losers if not task.done()]:
        await asyncio.wait(running)
