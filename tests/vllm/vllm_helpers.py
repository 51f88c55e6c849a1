"""What the tests do to engines."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.base import Delta, GenerateRequest, SamplingParams
from engine.config import EngineConfig, VllmOptions
from engine.vllm.engine import VllmEngine

MAX_NUM_SEQS = 16
MAX_WAITING = 8
_IDS = itertools.count()


def config(model: Path | str, **options: object) -> EngineConfig:
    """What the tests start an engine with: float32, because bf16 is slow on most CPUs."""
    defaults: dict[str, object] = {"dtype": "float32", "enforce_eager": True}
    return EngineConfig(
        model=str(model),
        kind="vllm",
        max_model_len=2048,
        max_num_seqs=MAX_NUM_SEQS,
        max_waiting=MAX_WAITING,
        vllm=VllmOptions(**(defaults | options)),  # type: ignore[arg-type]
    )


def request(ids: Sequence[int], max_tokens: int = 16, **fields: Any) -> GenerateRequest:
    """A greedy request unless ``fields`` say otherwise; they go where they belong."""
    own = {field.name for field in dataclasses.fields(GenerateRequest)}
    outer = {name: fields.pop(name) for name in list(fields) if name in own}
    sampling = SamplingParams(max_tokens, **({"temperature": 0.0} | fields))
    return GenerateRequest(f"test-{next(_IDS)}", list(ids), sampling, **outer)


def prompt(length: int, seed: int = 0) -> list[int]:
    """Printable bytes, different for every seed, valid for every tokenizer of the tests."""
    return [32 + (i * 7 + seed * 31 + i * i * (seed + 1)) % 90 for i in range(length)]


@dataclass
class Output:
    """One choice, put together."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    deltas: list[Delta] = field(default_factory=list)

    @property
    def last(self) -> Delta:
        return self.deltas[-1]


async def run(engine: VllmEngine, asked: GenerateRequest) -> list[Output]:
    """All choices of a request, after checking that each of them ended once."""
    found: dict[int, Output] = {}
    async for delta in engine.generate(asked):
        output = found.setdefault(delta.index, Output())
        assert not output.deltas or output.last.finish_reason is None
        output.token_ids += delta.token_ids
        output.text += delta.text
        output.deltas.append(delta)
    assert all(output.last.finish_reason for output in found.values())
    return [found[index] for index in sorted(found)]


async def one(engine: VllmEngine, asked: GenerateRequest) -> Output:
    return (await run(engine, asked))[0]


async def until(true: Callable[[], bool], seconds: float = 30.0) -> float:
    """Wait until ``true()``; returns the seconds that took."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() - start < seconds, "waited too long"
        await asyncio.sleep(0.002)
    return time.monotonic() - start


@contextlib.asynccontextmanager
async def running(engine: VllmEngine, asked: list[GenerateRequest]) -> AsyncIterator[list[Any]]:
    """Consume requests in tasks, cancelled at the end."""
    tasks = [asyncio.create_task(run(engine, one)) for one in asked]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: engine.load().running + engine.load().waiting == 0)
