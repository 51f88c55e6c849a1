"""``llm-gateway model quantize --method awq|fp8|w8a8``: checkpoints for vLLM, made on the CPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from vllm_server import NAME, VllmServer

from engine import environments
from engine.base import EngineStartError
from engine.models.find import BundledModel
from engine.quantization.calibration_text import calibration_samples
from engine.quantization.llmcompressor import ENVIRONMENT
from engine.quantization.llmcompressor_worker import Impossible, group_size
from engine.quantization.methods import quantize
from engine.quantization.report import REPORT_NAME, Options, Report
from engine.vllm.checkpoint import read
from engine.vllm.hardware import Hardware
from engine.vllm.preflight import plan

KEPT = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
GPU = Hardware("cuda", "a GPU", capability=(8, 9))


def compress(source: Path | str, out: Path, method: str, **options: Any) -> Report:
    return quantize(str(source), out, Options(method, **options))


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Reports by method; the checkpoints are made by commands that run beside each other."""
    try:
        environments.interpreter(ENVIRONMENT)
    except environments.EnvironmentMissing as error:
        pytest.skip(str(error))
    place = tmp_path_factory.mktemp("compressed")
    text = place / "calibration.txt"
    text.write_text("The river rose during the night. " * 20)
    wanted: dict[str, list[object]] = {
        "w8a8": ["bundled"],
        "fp8": [tiny_model],
        "awq": [tiny_model, "--calibration", text, "--samples", 2],
    }
    started = {
        method: begin("model", "quantize", *what, "--method", method, "--out", place / method)
        for method, what in wanted.items()
    }
    try:
        found = {method: process.communicate(timeout=900) for method, process in started.items()}
    finally:
        for process in started.values():
            process.kill()
    for method, process in started.items():
        assert process.returncode == 0, found[method]
    return {method: json.loads(out) for method, (out, _) in found.items()}


def begin(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "gateway", *map(str, arguments), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_w8a8_is_served_by_vllm(made: dict[str, Any], needs_vllm: None, tmp_path: Path) -> None:
    server = VllmServer(tmp_path, Path(made["w8a8"]["out"]), QUANTIZATION="auto")
    try:
        server.wait_started()
        asked: Any = [{"role": "user", "content": "What is the capital of France?"}]
        chunks = list(
            server.sdk.chat.completions.create(
                model=NAME, messages=asked, temperature=0, max_tokens=24, stream=True
            )
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert "Paris" in text
        model = httpx.get(f"{server.url}/version").json()["model"]
        assert model["quantization"] == "compressed-tensors int8"
    finally:
        server.kill()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "setting", "family", "label"),
    [
        ("w8a8", "auto", "int8", "compressed-tensors int8"),
        ("fp8", "fp8", "fp8", "fp8 (compressed-tensors fp8)"),
        ("awq", "awq", "w4a16", "compressed-tensors w4a16"),
    ],
)
def test_the_server_recognises_what_was_made(
    made: dict[str, Any], tiny_model: Path, method: str, setting: str, family: str, label: str
) -> None:
    report = made[method]
    out = Path(report["out"])
    checkpoint = read(str(out))
    assert checkpoint.family == family
    assert plan(setting, checkpoint, GPU).label == label
    assert plan("auto", checkpoint, GPU).label == label
    source = BundledModel().checkpoint if method == "w8a8" else tiny_model
    for name in KEPT:
        assert (out / name).read_bytes() == (source / name).read_bytes()
    assert report["size_after"] < 0.8 * report["size_before"]
    assert list(out.parent.glob(".*")) == []
    assert json.loads((out / REPORT_NAME).read_text()) == report
    if method == "awq":
        groups = json.loads((out / "config.json").read_text())["quantization_config"]
        weights = groups["config_groups"]["group_0"]["weights"]
        assert (weights["num_bits"], weights["group_size"]) == (4, 128)
        assert "calibrated on 2 samples" in " ".join(report["notes"])


@pytest.mark.parametrize(
    ("widths", "group"), [((256, 640), 128), ((576, 1536), 64), ((96, 32), 32)]
)
def test_groups_divide_every_layer(widths: tuple[int, ...], group: int) -> None:
    assert group_size({str(w): SimpleNamespace(in_features=w) for w in widths}) == group


def test_layers_too_narrow_for_groups_are_refused() -> None:
    with pytest.raises(Impossible, match="256, 272 wide: use w8a8 or fp8"):
        group_size({str(w): SimpleNamespace(in_features=w) for w in (272, 256)})


@pytest.fixture
def put_worker(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Puts a shell script in the place of the environment's Python."""

    def put(script: str) -> None:
        python = tmp_path_factory.mktemp("environment") / "python"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        monkeypatch.setattr(environments, "interpreter", lambda name: python)

    return put


def test_an_interrupt_leaves_nothing(put_worker: Any, tiny_model: Path, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    put_worker(f"echo $$ > {note}; echo '@progress 0.5 quantising'; exec sleep 600")

    def interrupt(stage: str, fraction: float | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(tiny_model, tmp_path / "out", "w8a8", say=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["pid"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo '@error it cannot be'; exit 1", "failed: it cannot be"),
        ("echo first; echo the reason; exit 3", "llm-compressor said: first | the reason"),
        ("kill -9 $$", "memory ran out"),
        ("exit 0", "llm-compressor said"),
    ],
)
def test_a_worker_that_fails_is_explained(
    put_worker: Any, tiny_model: Path, tmp_path: Path, script: str, why: str
) -> None:
    put_worker(script)
    with pytest.raises(EngineStartError) as caught:
        compress(tiny_model, tmp_path / "out", "fp8")
    assert why in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_sources_that_are_refused(
    put_worker: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusal(changes: dict[str, Any], method: str = "w8a8", **options: Any) -> str:
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        shutil.copytree(tiny_model, folder)
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(EngineStartError) as caught:
            compress(folder, tmp_path / "out", method, **options)
        assert not (tmp_path / "out").exists()
        return str(caught.value)

    quantised = {"quantization_config": {"quant_method": "awq"}}
    assert "is quantised already (awq)" in refusal(quantised)
    assert "BertModel" in refusal({"architectures": ["BertModel"]})
    assert "GPT2LMHeadModel" in refusal({"architectures": ["GPT2LMHeadModel"]})
    assert "an unnamed family" in refusal({"architectures": []})
    assert "there is no absent.txt" in refusal({}, "awq", calibration=Path("absent.txt"))
    with pytest.raises(EngineStartError, match=r"no config\.json"):
        compress(BundledModel().shipped, tmp_path / "out", "fp8")
    put_worker("exit 1")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2**20))
        assert "no space for" in refusal({})
    monkeypatch.undo()
    monkeypatch.setattr(environments, "_folder", lambda name, cache: tmp_path / "none")
    assert "python -m engine.environments llmcompressor" in refusal({})


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.jsonl", '{"text": "x"}\n{', "line 2, is not JSON"),
        ("a.jsonl", '{"text": "x"}\n\n{"other": 1}', "line 3, holds no text"),
        ("a.jsonl", '{"messages": [1]}', "line 1, holds no text"),
        ("a.jsonl", "\n", "is empty"),
        ("a.txt", " \n", "is empty"),
        ("a.txt", b"\xff\xfe", "cannot be read as text"),
    ],
)
def test_calibration_files_that_are_wrong(
    tmp_path: Path, name: str, content: str | bytes, why: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(EngineStartError) as caught:
        calibration_samples(file, 4)
    assert why in str(caught.value)


def test_calibration_samples(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    messages = [{"role": "user", "content": "Hi"}]
    lines = ["zero", {"text": "one"}, {"prompt": "two"}, {"messages": messages}]
    file.write_text("\n".join(map(json.dumps, lines)))
    found = calibration_samples(file, 2)
    assert found == [
        *({"text": text} for text in ("zero", "one", "two")),
        {"messages": messages},
    ]
    built_in = calibration_samples(None, 3)
    assert len(built_in) == 3
    assert built_in == calibration_samples(None, 3)
    assert built_in[0]["messages"][0]["role"] == "user"
