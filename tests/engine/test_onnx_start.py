"""A start that cannot work says why and what to do about it."""

from __future__ import annotations

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from random_llama import Shape, random_weights, write_prepared

from engine.base import EngineError, EngineStartError
from engine.config import EngineConfig
from engine.onnx.engine import OnnxEngine
from engine.onnx.prepared import MANIFEST_NAME, MODEL_NAME, TOKENIZER_NAME, Manifest, PreparedModel


@pytest.fixture
def folder(llama: Path, tmp_path: Path) -> Path:
    """A prepared folder that the test may spoil."""
    return Path(shutil.copytree(llama, tmp_path / "model"))


async def start_error(folder: Path, **config: Any) -> str:
    engine = OnnxEngine(replace(EngineConfig(), **config), folder)
    with pytest.raises(EngineStartError) as caught:
        await engine.start()
    assert engine.progress.state == "stopped"
    with pytest.raises(EngineError):
        _ = engine.info
    await engine.stop(0)
    return str(caught.value)


@pytest.mark.parametrize("name", [MANIFEST_NAME, MODEL_NAME, TOKENIZER_NAME])
async def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    message = await start_error(folder)
    assert name in message
    assert "convert" in message


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "not a folder" in await start_error(tmp_path / "nothing")


@pytest.mark.parametrize("size", [0, 100, 20_000])
async def test_a_truncated_model_is_refused(folder: Path, size: int) -> None:
    whole = (folder / MODEL_NAME).read_bytes()
    (folder / MODEL_NAME).write_bytes(whole[:size])
    assert MODEL_NAME in await start_error(folder)


async def test_a_damaged_tokenizer_is_refused(folder: Path) -> None:
    (folder / TOKENIZER_NAME).write_text("{}")
    assert TOKENIZER_NAME in await start_error(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"num_layers": 3},
        {"num_layers": 1},
        {"num_kv_heads": 4},
        {"head_dim": 32},
        {"vocab_size": 500},
        {"vocab_size": -1},
        {"max_model_len": "long"},
        {"precision": "int3"},
        {"eos_token_ids": 2},
        {"surprise": 1},
    ],
)
async def test_a_wrong_manifest_is_refused(folder: Path, change: dict[str, Any]) -> None:
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    message = await start_error(folder)
    assert "convert" in message


async def test_a_manifest_that_is_no_json_is_refused(folder: Path) -> None:
    (folder / MANIFEST_NAME).write_text("{")
    assert MANIFEST_NAME in await start_error(folder)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"options": {"max_prefill_chunk": 1}}, "max_prefill_chunk"),
        ({"options": {"spin_us": True}}, "spin_us"),
        ({"options": {"spin_us": -1}}, "spin_us"),
        ({"options": {"spinning": 1}}, "spinning"),
        ({"itl_ratio": 1.0}, "itl_ratio"),
        ({"kv_cache_tokens": 0}, "kv_cache_tokens"),
        ({"max_num_seqs": 0}, "max_num_seqs"),
    ],
)
async def test_a_wrong_setting_is_named(llama: Path, config: dict[str, Any], word: str) -> None:
    assert word in await start_error(llama, **config)


async def test_too_little_memory_is_said(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("engine.onnx.session.KvSlots", refuse)
    assert "MAX_NUM_SEQS" in await start_error(llama)


async def test_a_small_machine_gets_a_small_kv_budget(
    start_onnx: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.onnx.kv_budget.available_memory", lambda: 2_000_000)
    engine = await start_onnx()
    assert 0 < engine.load().kv_total < 8 * Shape().max_len
    monkeypatch.setattr("engine.onnx.kv_budget.available_memory", lambda: 1000)
    with pytest.raises(EngineStartError, match="free memory"):
        await start_onnx()


async def test_a_model_that_loads_but_does_not_run_is_refused(tmp_path: Path) -> None:
    shape = Shape()
    weights = random_weights(shape)
    embedding = "model.embed_tokens.weight"
    weights[embedding] = weights[embedding][:, : shape.hidden // 2]
    folder = write_prepared(tmp_path / "model", shape, weights)
    assert MODEL_NAME in await start_error(folder)


async def test_stop_while_loading(llama: Path) -> None:
    engine = OnnxEngine(EngineConfig(), llama)
    starting = asyncio.create_task(engine.start())
    await asyncio.sleep(0)
    assert engine.progress.state == "loading"
    await engine.stop(0)
    with pytest.raises(EngineStartError, match="stopped"):
        await starting
    assert engine.progress.state == "stopped"


def test_the_manifest_survives_a_round_trip(llama: Path, tmp_path: Path) -> None:
    manifest = replace(Manifest.read(llama), eos_token_ids=(1, 2), precision="int8")
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST_NAME]


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({}, None),
        ({"tokenizer_config.json": '{"chat_template": "inline"}'}, "inline"),
        (
            {
                "tokenizer_config.json": '{"chat_template": "inline"}',
                "chat_template.jinja": "file",
            },
            "file",
        ),
        (
            {
                "tokenizer_config.json": json.dumps(
                    {
                        "chat_template": [
                            {"name": "tool_use", "template": "tools"},
                            {"name": "default", "template": "plain"},
                        ]
                    }
                )
            },
            "plain",
        ),
    ],
)
def test_where_the_chat_template_comes_from(
    folder: Path, files: dict[str, str], template: str | None
) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    assert PreparedModel.read(folder).chat_template == template


def test_special_tokens_reach_the_template(folder: Path) -> None:
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "pad_token": None}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    globals_of_template = PreparedModel.read(folder).template_globals
    assert globals_of_template == {"bos_token": "<s>", "eos_token": "</s>"}


async def test_the_model_length_is_capped_by_the_config(start_onnx: Any) -> None:
    assert (await start_onnx()).info.max_model_len == Shape().max_len
    assert (await start_onnx(max_model_len=100)).info.max_model_len == 100
    assert (await start_onnx(max_model_len=10**6)).info.max_model_len == Shape().max_len


async def test_a_model_of_odd_sizes_starts(start_onnx: Any, tmp_path: Path) -> None:
    shape = Shape(vocab=301, layers=1, heads=3, kv_heads=1, head_dim=16, hidden=48, max_len=37)
    folder = write_prepared(tmp_path / "odd", shape, random_weights(shape))
    engine = await start_onnx(folder)
    assert engine.info.vocab_size == 301
