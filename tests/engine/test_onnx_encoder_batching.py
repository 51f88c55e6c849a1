"""How the encoder engine batches, refuses, lets go, dies and stops; torch is not needed."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encoder_checkpoints import LONGEST, TEXTS, encode, word_piece
from table_encoder import averaged, write_table_encoder

from engine.base import Embedder, EmbedRequest, EngineDead, EngineOverloaded
from engine.config import EngineConfig
from engine.onnx_encoder.engine import OnnxEncoderEngine

HIDDEN = 32
SIZES = {"vocabulary": 300, "dimension": HIDDEN}
PROMPTS = [encode(text) for text in TEXTS]
WANTED = averaged(PROMPTS, **SIZES)
Start = Callable[..., Awaitable[OnnxEncoderEngine]]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "fast"
    return write_table_encoder(folder, word_piece(), **SIZES, longest=LONGEST)


@pytest.fixture(scope="session")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with matrix products that take a second or so for 200,000 tokens."""
    folder = tmp_path_factory.mktemp("encoders") / "slow"
    return write_table_encoder(folder, word_piece(), **SIZES, longest=LONGEST, products=150)


@pytest.fixture
async def start(fast: Path) -> AsyncIterator[Start]:
    """Starts engines and stops them at the end."""
    started: list[OnnxEncoderEngine] = []

    async def start(folder: Path = fast, **config: Any) -> OnnxEncoderEngine:
        base = EngineConfig(model=str(folder), kind="onnx", threads=1)
        engine = OnnxEncoderEngine(replace(base, **config))
        started.append(engine)
        await engine.start()
        return engine

    yield start
    for engine in started:
        await engine.stop(0)


async def vectors(engine: Embedder, prompts: list[list[int]], **fields: Any) -> np.ndarray:
    request = EmbedRequest(f"embed-{next(_numbers)}", prompts, **fields)
    return (await engine.embed(request)).vectors


def right(got: np.ndarray) -> bool:
    """Whether these are the vectors of PROMPTS."""
    return got.shape == WANTED.shape and float(np.abs(got - WANTED).max()) < 1e-5


def long_prompts(count: int, length: int = LONGEST) -> list[list[int]]:
    return [[2, *(5 + (i * 7 + j) % 200 for j in range(length - 2)), 3] for i in range(count)]


class Gate:
    """Holds the engine's thread before its next batch."""

    def __init__(self, engine: OnnxEncoderEngine) -> None:
        batcher = engine._worker
        assert batcher is not None
        run = batcher._run_batch
        self.open = threading.Event()
        self.reached = threading.Event()
        self.lengths: list[list[int]] = []

        def held(prompts: Any, options: Any) -> Any:
            self.lengths.append([len(prompt) for prompt in prompts])
            self.reached.set()
            assert self.open.wait(60)
            return run(prompts, options)

        batcher._run_batch = held

    async def until_reached(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, 60)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.002)


async def test_concurrent_requests_share_batches_by_length(start: Start) -> None:
    engine = await start()
    gate = Gate(engine)
    first = asyncio.create_task(vectors(engine, [[2, 5, 3]]))
    await gate.until_reached()
    waiting = [asyncio.create_task(vectors(engine, [p])) for p in long_prompts(5, 20)]
    waiting += [asyncio.create_task(vectors(engine, [p])) for p in long_prompts(5, 90)]
    await until(lambda: engine.load().waiting == 10)
    assert engine.load().running == 1
    gate.open.set()
    await asyncio.gather(first, *waiting)
    assert [sorted(set(lengths)) for lengths in gate.lengths] == [[3], [20], [90]]
    assert [len(lengths) for lengths in gate.lengths] == [1, 5, 5]
    assert (engine.load().waiting, engine.load().running) == (0, 0)


async def test_batches_stay_within_their_tokens(start: Start) -> None:
    engine = await start(options={"max_batch_tokens": 64})
    gate = Gate(engine)
    gate.open.set()
    await vectors(engine, long_prompts(9, 20) + long_prompts(2, 90))
    assert sum(len(lengths) for lengths in gate.lengths) == 11
    for lengths in gate.lengths:
        assert len(lengths) == 1 or max(lengths) * len(lengths) <= 64


async def test_a_small_request_does_not_wait_for_a_large_one(start: Start) -> None:
    engine = await start(options={"max_batch_tokens": 200})
    gate = Gate(engine)
    large = asyncio.create_task(vectors(engine, long_prompts(60)))
    await gate.until_reached()
    small = asyncio.create_task(vectors(engine, [[2, 5, 3]]))
    await until(lambda: engine.load().waiting == 1)
    gate.open.set()
    await small
    assert gate.lengths.index([3]) <= 2
    assert (await large).shape == (60, HIDDEN)


async def test_priority_comes_first(start: Start) -> None:
    engine = await start()
    gate = Gate(engine)
    order: list[str] = []

    async def note(name: str, length: int, priority: int) -> None:
        await vectors(engine, long_prompts(1, length), priority=priority)
        order.append(name)

    holder = asyncio.create_task(vectors(engine, [[2, 5, 3]]))
    await gate.until_reached()
    tasks = [asyncio.create_task(note("late", 90, 5))]
    await until(lambda: engine.load().waiting == 1)
    tasks.append(asyncio.create_task(note("urgent", 20, -1)))
    await until(lambda: engine.load().waiting == 2)
    gate.open.set()
    await asyncio.gather(holder, *tasks)
    assert order == ["urgent", "late"]


async def test_a_full_queue_refuses_and_recovers(start: Start) -> None:
    engine = await start(max_waiting=1, options={"max_waiting_tokens": 1024})
    gate = Gate(engine)
    first = asyncio.create_task(vectors(engine, PROMPTS))
    await gate.until_reached()
    with pytest.raises(EngineOverloaded):
        await vectors(engine, long_prompts(12))
    second = asyncio.create_task(vectors(engine, PROMPTS))
    await until(lambda: engine.load().waiting == 1)
    with pytest.raises(EngineOverloaded):
        await vectors(engine, PROMPTS)
    gate.open.set()
    assert right(await first)
    assert right(await second)
    assert len(await vectors(engine, long_prompts(12))) == 12  # alone it may be any size


async def test_cancelling_frees_the_queue_at_once(start: Start) -> None:
    engine = await start()
    gate = Gate(engine)
    running = asyncio.create_task(vectors(engine, long_prompts(40)))
    await gate.until_reached()
    waiting = asyncio.create_task(vectors(engine, PROMPTS))
    await until(lambda: engine.load().waiting == 1)
    for task in (waiting, running):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (engine.load().waiting, engine.load().running) == (0, 0)
    assert engine._worker is not None
    assert engine._worker._waiting_tokens == 0
    assert not any(engine._worker._buckets)
    gate.open.set()
    assert right(await vectors(engine, PROMPTS))
    assert gate.lengths[0] != gate.lengths[-1]


async def test_cancelling_ends_a_run_that_nobody_else_needs(start: Start, slow: Path) -> None:
    engine = await start(slow, options={"max_batch_tokens": 200_000})
    batcher = engine._worker
    assert batcher is not None
    run, ended = batcher._run_batch, []

    def watched(prompts: Any, options: Any) -> Any:
        try:
            rows = run(prompts, options)
        except Exception as error:
            ended.append(str(error))
            raise
        ended.append("whole")
        return rows

    batcher._run_batch = watched
    task = asyncio.create_task(vectors(engine, long_prompts(2000)))
    await until(lambda: batcher._options is not None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: bool(ended))
    assert "terminate" in ended[0]
    await engine.check_health()
    assert (await vectors(engine, PROMPTS)).shape == WANTED.shape


async def test_the_event_loop_runs_on_while_the_model_does(start: Start, slow: Path) -> None:
    engine = await start(slow, options={"max_batch_tokens": 200_000})
    task = asyncio.create_task(vectors(engine, long_prompts(600)))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.001)
        ticks += 1
    assert ticks >= 5


async def test_a_death_ends_every_request(start: Start) -> None:
    engine = await start()
    assert engine._worker is not None

    def crash(*_: Any) -> Any:
        raise RuntimeError("killed by the test")

    engine._worker._run_batch = crash
    answers = await asyncio.gather(
        *(vectors(engine, PROMPTS) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(answer, EngineDead) for answer in answers)
    with pytest.raises(EngineDead):
        await engine.check_health()
    with pytest.raises(EngineDead):
        await vectors(engine, PROMPTS)


async def test_stopping_lets_running_requests_finish_in_time(start: Start) -> None:
    engine = await start()
    task = asyncio.create_task(vectors(engine, PROMPTS))
    await until(lambda: sum((engine.load().waiting, engine.load().running)) == 1 or task.done())
    await engine.stop(60)
    assert right(await task)
    with pytest.raises(EngineDead):
        await vectors(engine, PROMPTS)


async def test_stopping_without_patience_ends_them(start: Start) -> None:
    engine = await start()
    gate = Gate(engine)
    tasks = [asyncio.create_task(vectors(engine, PROMPTS)) for _ in range(2)]
    await gate.until_reached()
    stopping = asyncio.create_task(engine.stop(0))
    await until(lambda: engine._worker is not None and engine._worker._ending)
    gate.open.set()
    await stopping
    for answer in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(answer, EngineDead)
