"""Several prompts as one stream: order of starts, ends, failures, and a full engine."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from engine.base import Delta, EngineDead, EngineOverloaded
from gateway.chat import prompt_runs
from gateway.chat.prompt_runs import run_prompts


class Prompts:
    """Generators that tell who runs; ``fails`` raises before the first delta of a prompt."""

    def __init__(self, deltas: int = 3, fails: Callable[[int], Exception | None] = lambda _: None):
        self.deltas = deltas
        self.fails = fails
        self.running: set[int] = set()
        self.most = 0
        self.started: list[int] = []

    async def start(self, position: int) -> AsyncGenerator[Delta, None]:
        if (error := self.fails(position)) is not None:
            raise error
        self.started.append(position)
        self.running.add(position)
        self.most = max(self.most, len(self.running))
        try:
            for number in range(self.deltas):
                await asyncio.sleep(0)
                yield Delta(0, [number], str(number))
        finally:
            self.running.discard(position)


async def texts(prompts: Prompts, count: int, most: int) -> dict[int, str]:
    found = dict.fromkeys(range(count), "")
    async for position, delta in run_prompts(prompts.start, count, most):
        found[position] += delta.text
    return found


@pytest.mark.parametrize(("count", "most"), [(1, 1), (5, 1), (5, 2), (5, 9), (200, 7)])
async def test_every_prompt_comes_whole(count: int, most: int) -> None:
    prompts = Prompts()
    assert await texts(prompts, count, most) == dict.fromkeys(range(count), "012")
    assert prompts.started == list(range(count))
    assert prompts.most <= min(count, most)
    assert not prompts.running


@pytest.mark.parametrize("count", [1, 6])
async def test_closing_closes_all(count: int) -> None:
    prompts = Prompts(deltas=10**9)
    deltas = run_prompts(prompts.start, count, 4)
    for _ in range(10):
        await anext(deltas)
    assert len(prompts.running) == min(count, 4)
    await deltas.aclose()
    assert not prompts.running


async def test_cancelling_the_reader_closes_all() -> None:
    prompts = Prompts(deltas=10**9)

    async def read() -> None:
        deltas = run_prompts(prompts.start, 6, 4)
        try:
            async for _ in deltas:
                pass
        finally:
            await deltas.aclose()

    reader = asyncio.create_task(read())
    while len(prompts.running) < 4:
        await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert not prompts.running


async def test_one_failure_ends_all() -> None:
    prompts = Prompts(deltas=50, fails=lambda at: EngineDead("dead") if at == 5 else None)
    with pytest.raises(EngineDead):
        await texts(prompts, 9, 3)
    assert not prompts.running
    assert 8 not in prompts.started


async def test_an_engine_that_is_full_at_first_refuses_the_call() -> None:
    prompts = Prompts(fails=lambda at: EngineOverloaded("full") if at == 2 else None)
    with pytest.raises(EngineOverloaded):
        await texts(prompts, 4, 4)
    assert not prompts.running


async def test_later_prompts_wait_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_runs, "FIRST_PAUSE_S", 0.001)
    refusals = {3: 2, 4: 1}

    def full(position: int) -> Exception | None:
        refusals[position] = refusals.get(position, 0) - 1
        return EngineOverloaded("full") if refusals[position] >= 0 else None

    prompts = Prompts(fails=full)
    assert await texts(prompts, 5, 2) == dict.fromkeys(range(5), "012")
    monkeypatch.setattr(prompt_runs, "PATIENCE_S", -1.0)
    never = Prompts(fails=lambda at: EngineOverloaded("full") if at == 3 else None)
    with pytest.raises(EngineOverloaded):
        await texts(never, 5, 2)
    assert not never.running
