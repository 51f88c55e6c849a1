"""The fake engine does what its script says."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from onnx_calls import ask, prompt, request

from engine.base import EngineDead, EngineOverloaded, EngineStartError
from engine.config import EngineConfig
from engine.fake import FakeEngine

LITTLE_S = 0.05


async def start(**script: Any) -> FakeEngine:
    engine = FakeEngine(EngineConfig(max_model_len=1000, options=script))
    await engine.start()
    return engine


async def timed(engine: FakeEngine, **options: Any) -> float:
    began = time.monotonic()
    await ask(engine, prompt(5), **options)
    return time.monotonic() - began


async def test_a_fixed_text_and_its_end() -> None:
    engine = await start(text="Hello, wörld!")
    answer = await ask(engine, prompt(5), max_tokens=100, ignore_eos=False)
    assert answer.text == "Hello, wörld!"
    assert answer.last.finish_reason == "stop"
    again = await ask(engine, prompt(5), max_tokens=30)
    assert again.text.startswith("Hello, wörld!Hello")


async def test_an_end_after_so_many_tokens() -> None:
    engine = await start(output_tokens=7)
    answer = await ask(engine, prompt(5), max_tokens=100, ignore_eos=False)
    assert len(answer.token_ids) == 8
    assert answer.last.finish_reason == "stop"


async def test_the_script_seed_changes_the_words() -> None:
    answers = [await ask(await start(seed=seed), prompt(5), max_tokens=40) for seed in (1, 1, 2)]
    assert answers[0].text == answers[1].text != answers[2].text


async def test_delays() -> None:
    assert await timed(await start(queue_s=LITTLE_S), max_tokens=3) >= LITTLE_S
    assert await timed(await start(ttft_s=LITTLE_S), max_tokens=3) >= LITTLE_S
    assert await timed(await start(itl_s=LITTLE_S), max_tokens=3) >= 2 * LITTLE_S
    jittered = await start(itl_s=LITTLE_S, jitter=0.5)
    assert await timed(jittered, max_tokens=3) >= LITTLE_S


async def test_a_slow_start_shows_progress() -> None:
    engine = FakeEngine(EngineConfig(options={"start_s": 4 * LITTLE_S}))
    starting = asyncio.create_task(engine.start())
    seen = set()
    while not starting.done():
        seen.add(engine.progress.fraction)
        await asyncio.sleep(0.001)
    assert len(seen) > 5
    assert engine.progress.state == "ready"


async def test_a_start_that_fails() -> None:
    engine = FakeEngine(EngineConfig(options={"start_error": "no GPU: add one"}))
    with pytest.raises(EngineStartError, match="add one"):
        await engine.start()


async def test_a_start_that_hangs_can_be_stopped() -> None:
    engine = FakeEngine(EngineConfig(options={"hang": "start"}))
    starting = asyncio.create_task(engine.start())
    await asyncio.sleep(0.01)
    assert engine.progress.state == "loading"
    await engine.stop(0)
    with pytest.raises(EngineStartError):
        await starting


async def test_death_after_so_many_tokens_of_all_streams() -> None:
    engine = await start(die_after_tokens=10)
    results = await asyncio.gather(
        *(ask(engine, prompt(5, i), max_tokens=20) for i in range(2)), return_exceptions=True
    )
    assert all(isinstance(result, EngineDead) for result in results)
    with pytest.raises(EngineDead):
        await engine.check_health()


@pytest.mark.parametrize(
    ("phase", "waiting", "tokens"), [("queue", 1, 0), ("prefill", 0, 0), ("decode", 0, 1)]
)
async def test_a_phase_that_hangs(phase: str, waiting: int, tokens: int) -> None:
    engine = await start(hang=phase)
    task = asyncio.create_task(ask(engine, prompt(5)))
    await asyncio.sleep(LITTLE_S)
    assert not task.done()
    load = engine.load()
    assert (load.waiting, load.running) == (waiting, 1 - waiting)
    assert engine._tokens_made == tokens
    task.cancel()
    await asyncio.sleep(0.01)
    assert engine.load().running + engine.load().waiting == 0


async def test_overloaded() -> None:
    with pytest.raises(EngineOverloaded):
        await ask(await start(overloaded=True), prompt(5))


@pytest.mark.parametrize(
    "script",
    [
        {"ttft": 1.0},
        {"ttft_s": "1"},
        {"ttft_s": -1.0},
        {"ttft_s": float("nan")},
        {"jitter": 2},
        {"hang": "forever"},
        {"output_tokens": 1.5},
        {"overloaded": 1},
        {"text": ""},
    ],
)
async def test_a_wrong_script_stops_the_start(script: dict[str, Any]) -> None:
    with pytest.raises(EngineStartError, match=next(iter(script))):
        await start(**script)


async def test_streams_are_stepped_together() -> None:
    """No stream gets ahead of another by more than a step."""
    engine = await start()
    made: list[int] = []

    async def consume(index: int) -> None:
        async for delta in engine.generate(request(prompt(5, index), max_tokens=50)):
            made.extend([index] * len(delta.token_ids))

    await asyncio.gather(*(consume(index) for index in range(8)))
    counts = [0] * 8
    for index in made:
        counts[index] += 1
        assert max(counts) - min(counts) <= 2
