"""Embedding models on a real vLLM: the embedding contract, and transformers' own vectors."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from vllm_helpers import config

from engine.base import Engine, EngineOverloaded, EngineStartError
from engine.registry import build_engine
from engine.vllm.compat import installed_version
from engine.vllm.engine import VllmEngine
from engine.vllm.pooling import VllmPoolingEngine

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))
sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from embed_calls import vectors
from encoder_checkpoints import LONGEST, TEXTS, encode, expected, write_encoder
from engine_calls import is_idle, prompt, until
from test_contract_embed import (
    PROMPTS,
    test_dimensions_are_cut_and_normalised,  # noqa: F401
    test_normalisation_is_the_callers_choice,  # noqa: F401
    test_the_description_names_the_space,  # noqa: F401
    test_vectors_come_in_order_and_independent_of_mates,  # noqa: F401
    test_what_cannot_succeed_is_refused,  # noqa: F401
)

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]
# vLLM's kernels sum in another order than transformers'.
CLOSE = 1e-3


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The contract's prompts are up to LONGEST tokens of ids below 220, as BERT's are here.
    folder = tmp_path_factory.mktemp("pooling") / "bert"
    # One head of 32: vLLM's CPU attention has no kernel for narrower ones.
    return write_encoder(folder, matryoshka_dimensions=[8], num_attention_heads=1)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pooling(bert: Path) -> AsyncIterator[VllmPoolingEngine]:
    if installed_version() is None:
        pytest.skip("vLLM is not installed")
    engine = build_engine(replace(config(bert), max_model_len=None))
    assert isinstance(engine, VllmPoolingEngine)
    await engine.start()
    yield engine
    await engine.stop(0)


@pytest_asyncio.fixture(loop_scope="session")
async def embedder(pooling: VllmPoolingEngine) -> AsyncIterator[Engine]:
    yield pooling
    await until(lambda: is_idle(pooling))


async def test_vectors_are_those_of_transformers(embedder: VllmPoolingEngine, bert: Path) -> None:
    prompts = [encode(text) for text in TEXTS]
    got = await vectors(embedder, prompts)
    assert np.linalg.norm(got - expected(bert, prompts), axis=1).max() < CLOSE


@pytest.mark.parametrize("turns", [0, 1, 3, 20, 200])
async def test_cancelling_aborts_in_every_phase(embedder: VllmPoolingEngine, turns: int) -> None:
    task = asyncio.create_task(vectors(embedder, [prompt(LONGEST, i) for i in range(300)]))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await until(lambda: is_idle(embedder) and not embedder._live, 60)
    assert len(await vectors(embedder, PROMPTS)) == len(PROMPTS)


async def test_a_full_queue_refuses(embedder: VllmPoolingEngine) -> None:
    assert embedder._built is not None
    room = embedder._built.shape.max_num_seqs + embedder._config.max_waiting
    tasks = [asyncio.create_task(vectors(embedder, PROMPTS)) for _ in range(room)]
    await asyncio.sleep(0)
    with pytest.raises(EngineOverloaded):
        await vectors(embedder, PROMPTS)
    assert all(len(found) == len(PROMPTS) for found in await asyncio.gather(*tasks))


async def test_a_model_that_generates_is_no_embedder(engine: VllmEngine) -> None:
    # vLLM says so once the model is loaded, as the shared one is.
    assert engine._built is not None
    other = VllmPoolingEngine(config("a model that generates"))
    with pytest.raises(EngineStartError, match="makes no embeddings"):
        await other._finish_start(engine._built)
