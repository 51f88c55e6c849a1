"""Measuring engines that hand out asynchronous token streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from benchmarks.workers.wire import Sample

# Starts a stream for (prompt, most tokens) that yields the number of new tokens.
StartStream = Callable[[list[int], int], AsyncGenerator[int, None]]


@dataclass(frozen=True, slots=True)
class Arrival:
    """New tokens of one stream."""

    at: float
    stream: int
    tokens: int


async def prefill(start_stream: StartStream, prompt: list[int]) -> Sample:
    """Time from handing over the prompt to its first token."""
    begin = time.perf_counter()
    made = 0
    async with aclosing(start_stream(prompt, 1)) as stream:
        async for count in stream:
            made += count
            elapsed = time.perf_counter() - begin
            break
    if made != 1:
        raise RuntimeError(f"prefill gave {made} tokens instead of 1")
    return Sample(len(prompt), elapsed)


async def decode(
    start_stream: StartStream, prompts: list[list[int]], tokens: int, most: int
) -> Sample:
    """Aggregate decode while every stream is running.

    The window runs from the first token of the stream that started last to its
    ``tokens``-th after that, so that it covers whole steps with all streams in them.
    """
    arrivals: list[Arrival] = []
    # Tokens of each stream after its first arrival, which may bring several.
    seen = [-1] * len(prompts)
    done = asyncio.Event()

    async def follow(index: int, prompt: list[int]) -> None:
        async with aclosing(start_stream(prompt, most)) as stream:
            async for count in stream:
                arrivals.append(Arrival(time.perf_counter(), index, count))
                seen[index] = 0 if seen[index] < 0 else seen[index] + count
                if min(seen) >= tokens:
                    done.set()
        if not done.is_set():
            raise RuntimeError(f"a stream ended after {seen[index]} tokens, inside the window")

    tasks = [asyncio.create_task(follow(i, p)) for i, p in enumerate(prompts)]
    waiters: list[asyncio.Task[Any]] = [asyncio.create_task(done.wait()), *tasks]
    try:
        await asyncio.wait(waiters, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for waiter in waiters:
            waiter.cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
    return window(arrivals, len(prompts), tokens)


async def batch(start_stream: StartStream, prompts: list[list[int]], tokens: int) -> Sample:
    """Wall time from handing over all prompts to the last token of the last stream."""

    async def follow(prompt: list[int]) -> int:
        made = 0
        async with aclosing(start_stream(prompt, tokens)) as stream:
            async for count in stream:
                made += count
        return made

    begin = time.perf_counter()
    made = await asyncio.gather(*(follow(prompt) for prompt in prompts))
    return Sample(sum(made), time.perf_counter() - begin)


def window(arrivals: list[Arrival], streams: int, tokens: int) -> Sample:
    """The part of ``arrivals`` in which all streams decode."""
    first: dict[int, int] = {}
    for i, arrival in enumerate(arrivals):
        first.setdefault(arrival.stream, i)
    if len(first) != streams:
        raise RuntimeError(f"only {len(first)} of {streams} streams gave tokens")
    last_stream, begin = max(first.items(), key=lambda item: item[1])
    left = tokens
    for end in range(begin + 1, len(arrivals)):
        if arrivals[end].stream == last_stream:
            left -= arrivals[end].tokens
            if left <= 0:
                break
    else:
        raise RuntimeError("the last stream gave too few tokens")
    made = sum(arrival.tokens for arrival in arrivals[begin + 1 : end + 1])
    return Sample(made, arrivals[end].at - arrivals[begin].at)
