"""Quantised checkpoints, made by llm-compressor, on a real vLLM.

They are kept in ``checkpoints``; ``python scripts/make_checkpoints.py --tests`` makes them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from vllm_helpers import config, one, prompt, request, run

from engine.models.find import BundledModel
from engine.vllm.engine import VllmEngine
from engine.vllm.hardware import cpu_flags

KEPT = Path(__file__).parent / "checkpoints"
asyncio_session = pytest.mark.asyncio(loop_scope="session")
AGAIN = "the bundled model has changed: run python scripts/make_checkpoints.py --tests"


@pytest.mark.parametrize("scheme", ["int8", "fp8", "awq"])
def test_the_kept_checkpoints_are_of_the_bundled_model(scheme: str) -> None:
    weights = (BundledModel().checkpoint / "model.safetensors").read_bytes()
    source = json.loads((KEPT / scheme / "source.json").read_text())
    assert source["sha256"] == hashlib.sha256(weights).hexdigest(), AGAIN


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def quantised(needs_vllm: None) -> AsyncIterator[dict[str, VllmEngine]]:
    """Engines by scheme, which start at the same time to leave no core idle."""
    engines = {
        "int8": VllmEngine(config(KEPT / "int8")),
        "fp8": VllmEngine(config(KEPT / "fp8", quantization="fp8")),
    }
    if "avx512f" in cpu_flags():
        awq = config(KEPT / "awq", quantization="awq", dtype="bfloat16")
        engines["awq"] = VllmEngine(awq)
    await asyncio.gather(*(engine.start() for engine in engines.values()))
    yield engines
    for engine in engines.values():
        await engine.stop(0)


@asyncio_session
@pytest.mark.slow
async def test_int8_weights_answer_beside_another_engine(
    engine: VllmEngine, quantised: dict[str, VllmEngine]
) -> None:
    second = quantised["int8"]
    assert second.info.quantization == "compressed-tensors int8"
    plain, small = await asyncio.gather(
        one(engine, request(prompt(30), 20, ignore_eos=True)),
        one(second, request(prompt(30), 20, ignore_eos=True)),
    )
    assert len(plain.token_ids) == len(small.token_ids) == 20
    assert plain.token_ids[0] == small.token_ids[0]
    # Each keeps its own metrics, however many live in one process.
    for each in (engine, second):
        assert each.load().prefix_queries > 0
    assert engine.info.id != second.info.id
    # A stop without patience ends the stream with what there is.
    task = asyncio.create_task(run(second, request(prompt(10), 1500, ignore_eos=True)))
    while second.load().running == 0:
        await asyncio.sleep(0.01)
    await second.stop(0)
    assert (await task)[0].last.finish_reason == "abort"
    assert second._processes.alive() == []
    await engine.check_health()


@asyncio_session
@pytest.mark.slow
async def test_an_fp8_checkpoint_answers(quantised: dict[str, VllmEngine]) -> None:
    engine = quantised["fp8"]
    assert engine.info.quantization == "fp8 (compressed-tensors fp8)"
    output = await one(engine, request(prompt(30), 8, ignore_eos=True))
    assert len(output.token_ids) == 8


@asyncio_session
@pytest.mark.slow
@pytest.mark.skipif("avx512f" not in cpu_flags(), reason="vLLM's 4-bit CPU kernels need AVX-512")
async def test_awq_weights_answer_on_avx512(quantised: dict[str, VllmEngine]) -> None:
    engine = quantised["awq"]
    assert engine.info.quantization == "compressed-tensors w4a16"
    assert len((await one(engine, request(prompt(30), 8, ignore_eos=True))).token_ids) == 8
