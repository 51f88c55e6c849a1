"""The encoder engine: exactness, batching, and what ends a request early."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from encoder_checkpoints import (
    FAMILIES,
    HIDDEN,
    LONGEST,
    TEXTS,
    encode,
    expected,
    write_encoder,
    write_extras,
)

from engine.base import (
    Embedder,
    EmbedRequest,
    Engine,
    EngineDead,
    EngineStartError,
    GenerateRequest,
    RequestRejected,
    SamplingParams,
)
from engine.config import EngineConfig
from engine.onnx_encoder.engine import OnnxEncoderEngine
from engine.onnx_encoder.families import ENCODERS
from engine.onnx_encoder.layout import MANIFEST_NAME
from engine.registry import build_engine

for needed in ("torch", "transformers", "onnx_ir"):
    pytest.importorskip(needed)
from engine.models.export_encoder import export  # noqa: E402

ALONE = 1e-5
"""How far a vector of length 1 may move with what else is in the batch."""

PROMPTS = [encode(text) for text in TEXTS]
Start = Callable[..., Awaitable[OnnxEncoderEngine]]
_numbers = itertools.count()


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoders") / "bert")


@pytest.fixture(scope="session")
def ready(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small BERT, exported in this process, which has torch in memory already."""
    folder = tmp_path_factory.mktemp("exported") / "bert"
    export(bert, folder, "fp32", "bert")
    return folder


@pytest.fixture
async def start(cache: Path, ready: Path) -> AsyncIterator[Start]:
    """Starts engines, on the small BERT unless told otherwise, and stops them at the end."""
    started: list[OnnxEncoderEngine] = []

    async def start(folder: Path = ready, **config: Any) -> OnnxEncoderEngine:
        base = EngineConfig(model=str(folder), kind="onnx", threads=1, cache_dir=cache)
        engine = build_engine(replace(base, **config))
        assert isinstance(engine, OnnxEncoderEngine)
        started.append(engine)
        await engine.start()
        return engine

    yield start
    for engine in started:
        await engine.stop(0)


def asking(prompts: list[list[int]], **fields: Any) -> EmbedRequest:
    return EmbedRequest(f"embed-{next(_numbers)}", prompts, **fields)


async def vectors(engine: Embedder, prompts: list[list[int]], **fields: Any) -> np.ndarray:
    return (await engine.embed(asking(prompts, **fields))).vectors


def farthest(got: np.ndarray, wanted: np.ndarray) -> float:
    assert got.shape == wanted.shape
    return float(np.linalg.norm(got - wanted, axis=1).max())


def long_prompts(count: int, length: int = LONGEST) -> list[list[int]]:
    return [[2, *(5 + (i * 7 + j) % 200 for j in range(length - 2)), 3] for i in range(count)]


def test_every_family_has_a_checkpoint_here() -> None:
    assert set(FAMILIES) == set(ENCODERS)


@pytest.mark.filterwarnings("ignore:.torch.jit")  # DeBERTa's own code
@pytest.mark.parametrize("family", FAMILIES)
async def test_a_converted_family_equals_transformers(
    family: str, start: Start, tmp_path: Path
) -> None:
    folder = write_encoder(tmp_path / family, family)
    made = tmp_path / "made"
    export(folder, made, "fp32", family)
    engine = await start(made)
    assert farthest(await vectors(engine, PROMPTS), expected(folder, PROMPTS)) < ALONE
    info = engine.info
    assert isinstance(engine, Engine)
    assert isinstance(engine, Embedder)
    assert info.capabilities.embeddings
    assert not info.capabilities.generation
    assert info.embedding is not None
    assert info.embedding.dimension == HIDDEN
    assert info.max_model_len == LONGEST
    assert (
        farthest(
            await vectors(engine, long_prompts(2)),
            expected(folder, long_prompts(2)),
        )
        < ALONE
    )


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken", "max"])
async def test_pooling_is_the_checkpoints_own(
    pooling: str, normalize: bool, start: Start, bert: Path, ready: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(ready, folder)
    write_extras(folder, pooling=pooling, normalize=normalize)
    engine = await start(folder)
    wanted = expected(bert, PROMPTS, pooling, normalize=normalize)
    scale = float(np.linalg.norm(wanted, axis=1).max())
    assert farthest(await vectors(engine, PROMPTS), wanted) < ALONE * scale
    other = await vectors(engine, PROMPTS, normalize=not normalize)
    lengths = np.linalg.norm(other, axis=1)
    assert bool(np.allclose(lengths, 1, atol=1e-6)) is not normalize


async def test_without_a_pooling_configuration_vectors_are_means_of_length_1(
    start: Start, bert: Path, ready: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(ready, folder)
    shutil.rmtree(folder / "1_Pooling")
    (folder / "modules.json").unlink()
    engine = await start(folder)
    assert farthest(await vectors(engine, PROMPTS), expected(bert, PROMPTS)) < ALONE


async def test_a_vector_does_not_depend_on_batch_mates(start: Start) -> None:
    engine = await start()
    prompts = PROMPTS + long_prompts(6) + long_prompts(6, 17) + [[2, 9, 3]]
    alone = np.concatenate([await vectors(engine, [prompt]) for prompt in prompts])
    together = await vectors(engine, prompts)
    assert farthest(together, alone) < ALONE
    at_once = await asyncio.gather(*(vectors(engine, [prompt]) for prompt in prompts))
    assert farthest(np.concatenate(at_once), alone) < ALONE


async def test_int8_is_close_and_independent(start: Start, bert: Path, tmp_path: Path) -> None:
    export(bert, tmp_path / "int8", "int8", "bert")
    engine = await start(tmp_path / "int8")
    assert engine.info.quantization == "int8"
    prompts = PROMPTS + long_prompts(3)
    got = await vectors(engine, prompts)
    # Random weights exaggerate what rounding does; a trained model loses far less.
    assert (got * expected(bert, prompts)).sum(axis=1).min() > 0.9
    alone = np.concatenate([await vectors(engine, [prompt]) for prompt in prompts])
    # Rounding to int8 may tip over where the fp32 part differs in its last bit.
    assert farthest(got, alone) < 0.02


async def test_a_ready_graph_is_taken_as_it_is(
    start: Start, bert: Path, ready: Path, cache: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "published"
    shutil.copytree(ready, folder)
    (folder / MANIFEST_NAME).unlink()
    (folder / "onnx").mkdir()
    (folder / "model.onnx").rename(folder / "onnx" / "model.onnx")
    engine = await start(folder)
    assert farthest(await vectors(engine, PROMPTS), expected(bert, PROMPTS)) < ALONE
    assert not list(cache.rglob("published*"))
    with pytest.raises(EngineStartError, match="safetensors"):
        await start(folder, precision="int8")
    with pytest.raises(EngineStartError, match="prepared as fp32"):
        await start(ready, precision="int8")


async def test_a_graph_that_pools_by_itself(start: Start, ready: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pools"
    shutil.copytree(ready, folder)
    table = np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)
    onnx.save(mean_of_table(table), folder / "model.onnx")
    engine = await start(folder)
    assert engine.info.embedding is not None
    assert engine.info.embedding.dimension == 8
    wanted = np.stack([table[prompt].mean(axis=0) for prompt in PROMPTS])
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    alone = np.concatenate([await vectors(engine, [prompt]) for prompt in PROMPTS])
    assert farthest(alone, wanted) < ALONE
    with pytest.raises(RequestRejected):
        await vectors(engine, PROMPTS, normalize=False)


def mean_of_table(table: np.ndarray) -> onnx.ModelProto:
    """ids [B, S] -> mean of their rows as ``sentence_embedding``; sees padding, takes no mask."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceMean", ["rows", "axis"], ["sentence_embedding"], keepdims=0),
    ]
    ids = helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, ["b", "s"])
    out = helper.make_tensor_value_info("sentence_embedding", onnx.TensorProto.FLOAT, ["b", 8])
    constants = [
        numpy_helper.from_array(table, "table"),
        numpy_helper.from_array(np.array([1]), "axis"),
    ]
    graph = helper.make_graph(nodes, "mean", [ids], [out], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


async def test_dimensions(start: Start, ready: Path, tmp_path: Path) -> None:
    engine = await start()
    full = await vectors(engine, PROMPTS)
    assert np.array_equal(await vectors(engine, PROMPTS, dimensions=HIDDEN), full)
    for size in (8, HIDDEN + 1):
        with pytest.raises(RequestRejected) as caught:
            await vectors(engine, PROMPTS, dimensions=size)
        assert caught.value.param == "dimensions"
    allowed = await start(options={"matryoshka": True})
    cut = await vectors(allowed, PROMPTS, dimensions=8)
    wanted = full[:, :8] / np.linalg.norm(full[:, :8], axis=1, keepdims=True)
    assert farthest(cut, wanted) < ALONE

    folder = tmp_path / "declared"
    shutil.copytree(ready, folder)
    write_extras(folder, pooling="mean", normalize=True, matryoshka_dimensions=[4, 16])
    declared = await start(folder)
    assert (await vectors(declared, PROMPTS, dimensions=16)).shape == (len(PROMPTS), 16)
    with pytest.raises(RequestRejected):
        await vectors(declared, PROMPTS, dimensions=8)


@pytest.mark.parametrize(
    "prompts", [[], [[]], [[1], []], [[-1]], [[300]], [[5] * (LONGEST + 1)]], ids=str
)
async def test_impossible_prompts_are_refused(start: Start, prompts: list[list[int]]) -> None:
    engine = await start()
    with pytest.raises(RequestRejected) as caught:
        await vectors(engine, prompts)
    assert caught.value.param == "input"
    too_long = any(len(prompt) > LONGEST for prompt in prompts)
    assert (caught.value.code == "context_length_exceeded") is too_long


async def test_an_encoder_generates_nothing(start: Start) -> None:
    engine = await start()
    request = GenerateRequest("g", [5], SamplingParams(max_tokens=1))
    with pytest.raises(RequestRejected):
        await anext(engine.generate(request))


async def test_the_shorter_of_the_declared_lengths_counts(
    start: Start, ready: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "short"
    shutil.copytree(ready, folder)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40}))
    assert (await start(folder)).info.max_model_len == 40
    assert (await start(folder, max_model_len=24)).info.max_model_len == 24
    assert (await start(folder, max_model_len=80)).info.max_model_len == 40


async def test_a_checkpoint_is_converted_once(
    start: Start, bert: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await start(bert)
    assert len(list((cache / "onnx").glob("bert-fp32-*/gateway_encoder.json"))) == 1
    import engine.models.convert_encoder as module

    monkeypatch.setattr(module, "run_export", pytest.fail)
    engine = await start(bert)
    assert farthest(await vectors(engine, PROMPTS), expected(bert, PROMPTS)) < ALONE


async def test_a_dense_module_is_refused(start: Start, ready: Path, tmp_path: Path) -> None:
    folder = tmp_path / "dense"
    shutil.copytree(ready, folder)
    path = folder / "modules.json"
    more = {"idx": 3, "name": "3", "path": "3_Dense", "type": "sentence_transformers.models.Dense"}
    path.write_text(json.dumps([*json.loads(path.read_text()), more]))
    with pytest.raises(EngineStartError, match="Dense"):
        await start(folder)


async def test_a_hub_id_becomes_what_was_downloaded(
    bert: Path, ready: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import engine.models.hub as hub

    config = EngineConfig(model="org/name", kind="onnx", threads=1, cache_dir=tmp_path)
    monkeypatch.setattr(hub, "download", lambda *_: ready)
    engine = build_engine(config)
    await engine.start()
    assert isinstance(engine, Embedder)
    assert engine.info.id == "org/name"
    assert farthest(await vectors(engine, PROMPTS), expected(bert, PROMPTS)) < ALONE
    await engine.check_health()
    await engine.stop(0)
    with pytest.raises(EngineDead):
        await vectors(engine, PROMPTS)

    def fail(*_: Any) -> Path:
        raise EngineStartError("the hub could not be reached")

    monkeypatch.setattr(hub, "download", fail)
    engine = build_engine(config)
    with pytest.raises(EngineStartError, match="reached"):
        await engine.start()
    assert engine.progress.state == "stopped"
