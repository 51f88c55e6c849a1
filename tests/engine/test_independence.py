"""A request's logits depend on its own tokens only.

Not on batch mates, not on where prefill chunks end, not on whether a prompt's prefix came
from the cache, not on preemption, not on which engine began its output. The bound that
holds, checked here for every variant:

- ``int8`` (per-token scales): identical to the bit, by integer arithmetic.
- ``fp32``, ``int8_block``, ``int4``: within LARGEST_CHANGE of a log-probability. On x86-64
  with AVX2 they are identical to the bit as well; other CPUs may have kernels that round
  otherwise for one row than for several.

Random weights make every difference large: a trained model's logits move far less.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_calls import Answer, ask, prompt
from random_llama import Shape, random_weights, write_prepared

from engine.base import Resume, TokenLogprob
from engine.models.find import BUNDLED_ROOT, SHIPPED_NAME
from engine.onnx.engine import OnnxEngine
from engine.onnx.prepared import MANIFEST_NAME, MODEL_NAME, TOKENIZER_NAME, Manifest

LARGEST_CHANGE = {"fp32": 1e-3, "int8": 0.0, "int8_block": 0.3, "int4": 0.3}

SHAPE = Shape(vocab=384, hidden=128, layers=4, heads=4, kv_heads=2, head_dim=32, intermediate=256)
# The last two leave one token behind full blocks; 145 = 16 + 2 * 64 + 1 and attention takes 64
# positions at a time.
LENGTHS = (2, 18, 33, 145)
MATES = [prompt(length, salt=length) for length in (5, 60, 31, 130, 9)]


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp32")
    return write_prepared(folder, SHAPE, random_weights(SHAPE, seed=3))


@pytest.fixture(scope="module", params=["fp32", "int8", "int8_block", "int4", "bundled"])
def variant(
    request: pytest.FixtureRequest, fp32: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A prepared folder of each kind that conversion makes, and the one that is shipped."""
    if request.param == "fp32":
        return fp32
    if request.param == "bundled":
        return BUNDLED_ROOT / SHIPPED_NAME
    ir = pytest.importorskip("onnx_ir")
    from engine.models.quantize import quantize

    folder = tmp_path_factory.mktemp(request.param)
    model = ir.load(fp32 / MODEL_NAME)
    quantize(model, request.param)
    ir.save(model, folder / MODEL_NAME)
    shutil.copy(fp32 / TOKENIZER_NAME, folder)
    replace(Manifest.read(fp32), precision=request.param).write(folder)
    return folder


@pytest.fixture
def largest_change(variant: Path) -> float:
    return LARGEST_CHANGE[Manifest.read(variant).precision]


async def ask_each(engine: OnnxEngine, **options: Any) -> list[Answer]:
    return [await ask_for_logprobs(engine, prompt(length), **options) for length in LENGTHS]


async def ask_for_logprobs(engine: OnnxEngine, ids: list[int], **options: Any) -> Answer:
    return await ask(engine, ids, max_tokens=40, logprobs=20, **options)


def largest_difference(got: list[TokenLogprob], expected: list[TokenLogprob]) -> float:
    """Over all log-probabilities up to and including the first token that differs."""
    worst = 0.0
    for ours, theirs in zip(got, expected, strict=False):
        ours_top, theirs_top = dict(ours.top), dict(theirs.top)
        shared = ours_top.keys() & theirs_top.keys()
        worst = max([worst, *(abs(ours_top[i] - theirs_top[i]) for i in shared)])
        if ours.token_id != theirs.token_id:
            break
    return worst


def logprobs(answer: Answer) -> list[TokenLogprob]:
    return [entry for delta in answer.deltas for entry in delta.logprobs]


def check(got: list[Answer], expected: list[Answer], largest_change: float) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        check_one(logprobs(ours), logprobs(theirs), largest_change)


def check_one(got: list[TokenLogprob], expected: list[TokenLogprob], largest_change: float) -> None:
    if largest_change == 0:
        assert got == expected
    else:
        assert largest_difference(got, expected) <= largest_change


_alone: dict[Path, list[Answer]] = {}


@pytest.fixture
async def alone(start_onnx: Any, variant: Path) -> list[Answer]:
    """Every prompt by itself, prefilled at once."""
    if variant not in _alone:
        _alone[variant] = await ask_each(await start_onnx(variant, prefix_cache_tokens=0))
    return _alone[variant]


async def test_batch_mates(
    start_onnx: Any, variant: Path, alone: list[Answer], largest_change: float
) -> None:
    engine = await start_onnx(variant, prefix_cache_tokens=0)
    endless = [asyncio.create_task(ask(engine, ids, max_tokens=300)) for ids in MATES]
    while engine.load().running < len(MATES):
        await asyncio.sleep(0.001)
    check(await ask_each(engine), alone, largest_change)
    for task in endless:
        task.cancel()
    together = await asyncio.gather(
        *(ask_for_logprobs(engine, prompt(length)) for length in LENGTHS)
    )
    check(list(together), alone, largest_change)


@pytest.mark.parametrize("max_prefill_chunk", [16, 31, 80])
async def test_chunks(
    start_onnx: Any,
    variant: Path,
    alone: list[Answer],
    largest_change: float,
    max_prefill_chunk: int,
) -> None:
    engine = await start_onnx(
        variant, prefix_cache_tokens=0, options={"max_prefill_chunk": max_prefill_chunk}
    )
    check(await ask_each(engine), alone, largest_change)


async def test_prefixes_from_the_cache(
    start_onnx: Any, variant: Path, alone: list[Answer], largest_change: float
) -> None:
    engine = await start_onnx(variant)
    for length in LENGTHS:
        await ask(engine, prompt(length), max_tokens=1)
    cached = await ask_each(engine)
    assert cached[-1].last.cached_tokens > 0
    check(cached, alone, largest_change)


@pytest.mark.parametrize("prefix_cache_tokens", [0, 4096])
async def test_preemption(
    start_onnx: Any,
    variant: Path,
    alone: list[Answer],
    largest_change: float,
    prefix_cache_tokens: int,
) -> None:
    tight = await start_onnx(variant, prefix_cache_tokens=prefix_cache_tokens, kv_cache_tokens=192)
    got = await asyncio.gather(*(ask_for_logprobs(tight, prompt(length)) for length in LENGTHS))
    crowd = [ask_for_logprobs(tight, prompt(33)) for _ in range(6)]
    same = await asyncio.gather(*crowd)
    assert tight.load().preemptions > 0
    check(list(got), alone, largest_change)
    check(same, [alone[LENGTHS.index(33)]] * len(same), largest_change)


@pytest.mark.parametrize("done", [1, 25])
async def test_carrying_on(
    start_onnx: Any, variant: Path, alone: list[Answer], largest_change: float, done: int
) -> None:
    engine = await start_onnx(variant)
    for length, whole in zip(LENGTHS, alone, strict=True):
        resume = Resume(tuple(whole.token_ids[:done]), text_sent=0)
        rest = await ask_for_logprobs(engine, prompt(length), resume=resume)
        check_one(logprobs(rest), logprobs(whole)[done:], largest_change)


def test_quantised_variants_are_different_models(variant: Path, fp32: Path) -> None:
    """Guards the test itself: a variant that is a copy of fp32 would prove nothing."""
    if variant != fp32:
        ours, theirs = ((folder / MODEL_NAME).read_bytes() for folder in (variant, fp32))
        assert ours != theirs
        assert (variant / MANIFEST_NAME).is_file()
    assert np.isfinite(LARGEST_CHANGE[Manifest.read(variant).precision])
