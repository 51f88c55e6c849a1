"""What every engine that embeds does alike. The ``embedder`` fixture gives the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from embed_calls import embed_request, vectors
from engine_calls import is_idle, prompt, request, until
from random_llama import byte_tokenizer
from table_encoder import write_table_encoder

from engine.base import Embedder, Engine, EngineDead, RequestRejected
from engine.config import EngineConfig
from engine.onnx_encoder.engine import OnnxEncoderEngine

CLOSE = 1e-4
ABORT_S = 10.0
PROMPTS = [prompt(5 + 9 * i, i) for i in range(6)]


@pytest.fixture
async def embedder(tmp_path: Path) -> AsyncIterator[Engine]:
    sizes = {"vocabulary": 384, "dimension": 16, "longest": 512}
    folder = write_table_encoder(
        tmp_path / "table", byte_tokenizer(384), **sizes, matryoshka_dimensions=[8]
    )
    engine = OnnxEncoderEngine(EngineConfig(model=str(folder), threads=1))
    await engine.start()
    yield engine
    await engine.stop(0)


def as_embedder(engine: Engine) -> Embedder:
    assert isinstance(engine, Embedder)
    return engine


async def test_the_description_names_the_space(embedder: Engine) -> None:
    info = embedder.info
    assert info.capabilities.embeddings
    assert not info.capabilities.generation
    assert info.embedding is not None
    found = await as_embedder(embedder).embed(embed_request(PROMPTS))
    assert found.vectors.shape == (len(PROMPTS), info.embedding.dimension)
    assert found.vectors.dtype == np.float32
    assert found.queue_s >= 0
    assert info.embedding.normalized
    assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-4)


async def test_vectors_come_in_order_and_independent_of_mates(embedder: Engine) -> None:
    engine = as_embedder(embedder)
    alone = np.concatenate([await vectors(engine, [ids]) for ids in PROMPTS])
    assert np.abs(await vectors(engine, PROMPTS) - alone).max() < CLOSE
    assert np.abs(await vectors(engine, PROMPTS[::-1]) - alone[::-1]).max() < CLOSE
    at_once = await asyncio.gather(*(vectors(engine, [ids]) for ids in PROMPTS * 3))
    assert np.abs(np.concatenate(at_once) - np.tile(alone, (3, 1))).max() < CLOSE
    assert not np.allclose(alone[0], alone[1], atol=1e-2)
    await until(lambda: is_idle(embedder))


async def test_normalisation_is_the_callers_choice(embedder: Engine) -> None:
    engine = as_embedder(embedder)
    plain = await vectors(engine, PROMPTS, normalize=False)
    unit = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    assert np.abs(await vectors(engine, PROMPTS, normalize=True) - unit).max() < CLOSE
    assert not np.allclose(plain, unit, atol=1e-2)


async def test_dimensions_are_cut_and_normalised(embedder: Engine) -> None:
    engine = as_embedder(embedder)
    full = await vectors(engine, PROMPTS)
    cut = full[:, :8] / np.linalg.norm(full[:, :8], axis=1, keepdims=True)
    assert np.abs(await vectors(engine, PROMPTS, dimensions=8) - cut).max() < CLOSE
    size = full.shape[1]
    assert np.abs(await vectors(engine, PROMPTS, dimensions=size) - full).max() < CLOSE
    for wrong in (7, size + 1):
        with pytest.raises(RequestRejected) as caught:
            await vectors(engine, PROMPTS, dimensions=wrong)
        assert caught.value.param == "dimensions"


async def test_what_cannot_succeed_is_refused(embedder: Engine) -> None:
    engine, info = as_embedder(embedder), embedder.info
    for prompts in ([], [[]], [[5], []], [[-1]], [[info.vocab_size]]):
        with pytest.raises(RequestRejected) as caught:
            await vectors(engine, prompts)
        assert caught.value.param == "input"
    with pytest.raises(RequestRejected) as caught:
        await vectors(engine, [prompt(info.max_model_len + 1)])
    assert caught.value.code == "context_length_exceeded"
    assert len(await vectors(engine, [prompt(info.max_model_len)])) == 1
    with pytest.raises(RequestRejected):
        await anext(embedder.generate(request()))
    assert is_idle(embedder)


@pytest.mark.parametrize("turns", [0, 1, 3, 20])
async def test_cancelling_aborts_in_every_phase(embedder: Engine, turns: int) -> None:
    engine = as_embedder(embedder)
    task = asyncio.create_task(vectors(engine, [prompt(200, i) for i in range(400)]))
    for _ in range(turns):
        await asyncio.sleep(0)
    neighbour = asyncio.create_task(vectors(engine, PROMPTS))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(await neighbour) == len(PROMPTS)
    await until(lambda: is_idle(embedder), ABORT_S)


async def test_after_a_stop_it_is_dead(embedder: Engine) -> None:
    await embedder.stop(0)
    with pytest.raises(EngineDead):
        await vectors(as_embedder(embedder), PROMPTS)
