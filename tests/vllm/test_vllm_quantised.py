"""Quantised checkpoints, made by llm-compressor, on a real vLLM."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from vllm_helpers import config, one, prompt, request, run

from engine.vllm.engine import VllmEngine
from engine.vllm.hardware import cpu_flags

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.slow,
    pytest.mark.usefixtures("needs_vllm"),
]
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_checkpoints.py"


def _script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_checkpoints", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(model: Path, out: Path, scheme: str) -> Path:
    if not _script().PYTHON.exists():
        pytest.skip("no .venv-compress: run python scripts/make_checkpoints.py --install")
    command = [sys.executable, str(SCRIPT), str(model), str(out), scheme]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


async def test_int8_weights_answer_beside_another_engine(
    engine: VllmEngine, model: Path, tmp_path: Path
) -> None:
    second = VllmEngine(config(await asyncio.to_thread(make, model, tmp_path / "int8", "int8")))
    await second.start()
    assert second.info.quantization == "compressed-tensors int8"
    plain, small = await asyncio.gather(
        one(engine, request(prompt(30), 20, ignore_eos=True)),
        one(second, request(prompt(30), 20, ignore_eos=True)),
    )
    assert len(plain.token_ids) == len(small.token_ids) == 20
    assert plain.token_ids[0] == small.token_ids[0]
    # Each keeps its own metrics, however many live in one process.
    for each in (engine, second):
        found = {s.name: s for s in each.metrics()}
        assert found["vllm:generation_tokens"].value >= 20
        assert found["vllm:generation_tokens"].labels["model_name"] == each.info.id
    assert engine.info.id != second.info.id
    # A stop without patience ends the stream with what there is.
    task = asyncio.create_task(run(second, request(prompt(10), 1500, ignore_eos=True)))
    while second.load().running == 0:
        await asyncio.sleep(0.01)
    await second.stop(0)
    assert (await task)[0].last.finish_reason == "abort"
    assert second._processes.alive() == []
    await engine.check_health()


async def test_an_fp8_checkpoint_answers(model: Path, tmp_path: Path) -> None:
    made = await asyncio.to_thread(make, model, tmp_path / "fp8", "fp8")
    engine = VllmEngine(config(made, quantization="fp8"))
    await engine.start()
    assert engine.info.quantization == "fp8 (compressed-tensors fp8)"
    output = await one(engine, request(prompt(30), 8, ignore_eos=True))
    assert len(output.token_ids) == 8
    await engine.stop(0)


@pytest.mark.skipif("avx512f" not in cpu_flags(), reason="vLLM's 4-bit CPU kernels need AVX-512")
async def test_awq_weights_answer_on_avx512(tiny_model: Path, tmp_path: Path) -> None:
    made = await asyncio.to_thread(make, tiny_model, tmp_path / "awq", "awq")
    engine = VllmEngine(config(made, quantization="awq", dtype="bfloat16"))
    await engine.start()
    assert engine.info.quantization == "compressed-tensors w4a16"
    assert len((await one(engine, request(prompt(30), 8, ignore_eos=True))).token_ids) == 8
    await engine.stop(0)
