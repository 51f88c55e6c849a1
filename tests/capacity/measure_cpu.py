"""The CPU predictions beside the engine itself: ``python tests/capacity/measure_cpu.py MODEL...``

Each MODEL is ``bundled`` or a Hugging Face folder, which is converted to int8 on first use. One
thread and its CPU time, so that a busy machine does not spoil the comparison; calibration and
measurements alternate, and the best of each counts.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

from engine.base import Engine, GenerateRequest, SamplingParams
from engine.capacity.calibrate import Calibration, calibrate
from engine.capacity.cpu import CpuStep
from engine.capacity.model import open_model
from engine.capacity.queueing import pairs
from engine.capacity.roofline import Work
from engine.config import EngineConfig
from engine.registry import build_engine

WIDTHS = (1, 4, 16)
PROMPT, PREFILL, TOKENS, ROUNDS = 64, 512, 60, 4
_ids = itertools.count()
_source = random.Random(1)


async def answered(engine: Engine, prompt: int, tokens: int) -> None:
    """One request from start to end."""
    ids = [_source.randrange(5, 900) for _ in range(prompt)]
    sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    async for _ in engine.generate(GenerateRequest(f"measure-{next(_ids)}", ids, sampling)):
        pass


async def cpu_seconds(engine: Engine, streams: int, prompt: int, tokens: int) -> float:
    """CPU time of this process for so many requests at once."""
    start = time.process_time()
    await asyncio.gather(*(answered(engine, prompt, tokens) for _ in range(streams)))
    return time.process_time() - start


async def measured(engine: Engine) -> dict[str, float]:
    """Seconds per decode step at each width, and of a prefill."""
    found = {"prefill": await cpu_seconds(engine, 1, PREFILL, 1)}
    for width in WIDTHS:
        short = await cpu_seconds(engine, width, PROMPT, 2)
        long = await cpu_seconds(engine, width, PROMPT, 2 + TOKENS)
        found[str(width)] = (long - short) / TOKENS
    return found


def predicted(step: CpuStep) -> dict[str, float]:
    """The same by the formula."""
    context = PROMPT + TOKENS / 2
    found = {"prefill": step(Work(prefill=PREFILL, prefill_pairs=pairs(0, PREFILL)))}
    return found | {str(n): step(Work(n, n * context, n * context)) for n in WIDTHS}


def best_of(found: list[Calibration]) -> Calibration:
    """Each figure at its best."""
    first = found[0]

    def curves(name: str) -> dict[str, dict[int, float]]:
        kinds = getattr(first, name)
        return {p: {r: min(getattr(c, name)[p][r] for c in found) for r in kinds[p]} for p in kinds}

    return replace(
        first,
        operator=min(c.operator for c in found),
        memory=curves("memory"),
        cache=curves("cache"),
        attend={k: min(c.attend[k] for c in found) for k in first.attend},
    )


async def main(sources: list[str]) -> None:
    """Measure and print a table."""
    best: dict[str, dict[str, float]] = {}
    calibrations = []
    for _ in range(ROUNDS):
        calibrations.append(calibrate(1, lambda stage, share: None))
        for source in sources:
            config = EngineConfig(
                model=source, kind="onnx", max_model_len=1024, threads=1, prefix_cache_tokens=0
            )
            engine = build_engine(config)
            await engine.start()
            try:
                for name, seconds in (await measured(engine)).items():
                    kept = best.setdefault(source, {})
                    kept[name] = min(seconds, kept.get(name, seconds))
            finally:
                await engine.stop(0.0)
    calibration = best_of(calibrations)
    calibration.save(Path("bench-results/calibration-one-thread.json"))
    for source, kept in best.items():
        expected = predicted(CpuStep(open_model(source), "int8", calibration))
        for name, seconds in kept.items():
            what = f"{PREFILL} prompt tokens" if name == "prefill" else f"a step of {name}"
            error = expected[name] / seconds - 1
            print(
                f"{source}: {what}: measured {seconds * 1000:.2f} ms, predicted "
                f"{expected[name] * 1000:.2f} ms ({error:+.0%})"
            )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:] or ["bundled"]))
