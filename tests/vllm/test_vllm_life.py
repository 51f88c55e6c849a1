"""Starts that fail, deaths and ends of engines on a real vLLM; each with its own engine."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import vllm_tiny as tiny
from vllm_helpers import config, one, prompt, request, until

from engine.base import EngineDead, EngineStartError
from engine.config import VllmOptions
from engine.vllm.compat import own_group
from engine.vllm.engine import VllmEngine
from engine.vllm.hardware import Hardware
from engine.vllm.process import CoreProcesses

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.slow,
    pytest.mark.usefixtures("needs_vllm"),
]
# An idle machine needs less than two seconds; a busy one delays processes.
DEATH_S = 6.0


def children() -> set[int]:
    """Running descendants of this process, resource trackers left out."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if fields[0] != "Z" and b"resource_tracker" not in command:
                parents[int(entry.name)] = int(fields[1])
    found: set[int] = set()
    level = {os.getpid()}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level}
        found |= level
    return found


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    before = children()
    yield
    # What vLLM's constructor leaves open when it fails is closed by the collector, which
    # warns; outside of a test that would be an error.
    gc.collect()
    deadline = time.monotonic() + 30
    while (left := children() - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


async def refused(engine: VllmEngine) -> str:
    with pytest.raises(EngineStartError) as caught:
        await engine.start()
    assert engine.progress.state == "dead"
    assert engine._processes.alive() == []
    await engine.stop(0)
    return str(caught.value)


async def test_a_context_that_does_not_fit_is_refused_with_the_numbers(
    tmp_path: Path, leaves_nothing: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    model = tiny.write_model(tmp_path / "long")
    path = model / "config.json"
    shape = json.loads(path.read_text()) | {"max_position_embeddings": 10**7}
    path.write_text(json.dumps(shape))
    long = VllmOptions(dtype="float32", enforce_eager=True)
    asked = config(model)
    engine = VllmEngine(type(asked)(model=str(model), max_model_len=5_000_000, vllm=long))
    message = await refused(engine)
    # 2 x 2 layers x 4 heads x 32 x 4 bytes; 1 GiB holds 524,288 such tokens.
    assert "2048 bytes per token" in message
    assert "VLLM_CPU_KVCACHE_SPACE=1 leaves 1.00 GiB" in message
    assert "MAX_MODEL_LEN=524288 or less" in message
    assert "VLLM_CPU_KVCACHE_SPACE=10 or more" in message


async def test_wrong_engine_args_are_refused_by_name(
    tiny_model: Path, leaves_nothing: None
) -> None:
    message = await refused(VllmEngine(config(tiny_model, engine_args={"no_such_thing": 1})))
    assert "'no_such_thing'" in message


async def test_online_fp8_is_refused_on_cpus(tiny_model: Path, leaves_nothing: None) -> None:
    message = await refused(VllmEngine(config(tiny_model, quantization="fp8")))
    assert "needs a GPU" in message
    assert "INT8" in message


async def test_awq_is_refused_on_avx2(tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "awq"
    shutil.copytree(tiny_model, model)
    path = model / "config.json"
    awq = {"quant_method": "awq", "bits": 4, "group_size": 128}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": awq}))
    avx2 = Hardware("cpu", "this CPU", memory=8 * 2**30, free=8 * 2**30, flags=frozenset({"avx2"}))
    message = await refused(VllmEngine(config(model, quantization="awq"), lambda: avx2))
    assert "AVX-512" in message
    assert "this CPU has AVX2" in message
    # On AVX-512 the same weights run, in 16 bits only.
    wide = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq"})
    avx512 = Hardware("cpu", "this CPU", memory=8 * 2**30, free=8 * 2**30, flags=wide)
    message = await refused(VllmEngine(config(model, quantization="awq"), lambda: avx512))
    assert "DTYPE=float32" in message


async def test_broken_weights_are_reported_with_the_workers_reason(
    tmp_path: Path, leaves_nothing: None
) -> None:
    model = tiny.write_model(tmp_path / "broken")
    shape = json.loads((model / "config.json").read_text()) | {"hidden_size": 256}
    (model / "config.json").write_text(json.dumps(shape))
    message = await refused(VllmEngine(config(model)))
    assert "could not start" in message
    # The reason itself, and not that some worker failed for some reason.
    assert "WorkerProc initialization failed" not in message
    assert "size" in message or "shape" in message or "Assertion" in message, message


async def test_a_cancelled_start_leaves_nothing(tiny_model: Path, leaves_nothing: None) -> None:
    engine = VllmEngine(config(tiny_model))
    task = asyncio.create_task(engine.start())
    await until(lambda: bool(engine._processes.alive()), 300)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine._processes.alive() == []
    await engine.stop(0)


@pytest_asyncio.fixture(loop_scope="session")
async def ngram(model: Path) -> AsyncIterator[VllmEngine]:
    speculative = {
        "method": "ngram",
        "num_speculative_tokens": 4,
        "prompt_lookup_max": 4,
        "prompt_lookup_min": 1,
    }
    engine = VllmEngine(config(model, speculative_config=speculative))
    await engine.start()
    yield engine
    await engine.stop(0)


async def test_speculation_gives_the_same_text_and_death_reaches_everyone(
    engine: VllmEngine, ngram: VllmEngine, leaves_nothing: None
) -> None:
    # Repetitive prompts are what n-gram lookup drafts from.
    for seed in range(3):
        ids = prompt(12, seed) * 4
        plain = await one(engine, request(ids, 40, ignore_eos=True))
        drafted = await one(ngram, request(ids, 40, ignore_eos=True))
        assert plain.token_ids == drafted.token_ids
        assert plain.text == drafted.text
    load = ngram.load()
    assert load.draft_tokens >= load.accepted_tokens > 0 < load.drafts
    assert engine.load().draft_tokens == 0

    streams = [ngram.generate(request(prompt(10, i), 1500, ignore_eos=True)) for i in range(8)]
    for stream in streams:
        await anext(stream)
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(_consume(stream)) for stream in streams]
    start = time.monotonic()
    os.kill(ngram._processes.cores()[0], signal.SIGKILL)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert time.monotonic() - start < DEATH_S
    assert all(isinstance(result, EngineDead) for result in results)
    assert ngram.progress.state == "dead"
    with pytest.raises(EngineDead):
        await ngram.check_health()
    with pytest.raises(EngineDead):
        await one(ngram, request(prompt(10), 1))
    await ngram.stop(0)
    # The other engine of this process has not noticed.
    await one(engine, request(prompt(10), 4))
    await engine.check_health()


async def test_starts_wait_for_each_others_processes_only() -> None:
    from vllm.v1.engine.core import EngineCoreProc

    original = EngineCoreProc.run_engine_core
    first, second = CoreProcesses(), CoreProcesses()

    def start_second() -> None:
        with own_group(second, 1):
            assert str(second.folder) in str(EngineCoreProc.run_engine_core)

    with own_group(first, 1):
        assert str(first.folder) in str(EngineCoreProc.run_engine_core)
        other = asyncio.create_task(asyncio.to_thread(start_second))
        await asyncio.sleep(0.2)
        assert not other.done()
        (first.folder / f"core-{2**22 + 1}").touch()  # larger than any process id
        await asyncio.wait_for(other, 60)
        assert EngineCoreProc.run_engine_core is original
    assert EngineCoreProc.run_engine_core is original
    first.close()
    second.close()


async def _consume(stream: Any) -> None:
    async for _ in stream:
        pass
