"""What a MODEL_NAME means, and what is said about one that cannot be served."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from convert_checkpoints import write_config, write_weights

from engine.base import EngineStartError
from engine.models import find
from engine.models.find import BundledModel, HubModel, LocalFolder, inspect, locate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    write_config(made, architectures=["LlamaForCausalLM"])
    (made / "tokenizer.json").write_text("{}")
    write_weights(made / "model.safetensors")
    return made


def test_locate_tells_the_three_kinds_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(locate("bundled"), BundledModel)
    assert locate(str(folder)) == LocalFolder(folder.resolve())
    monkeypatch.chdir(folder.parent)
    assert locate("model") == LocalFolder(folder.resolve())
    assert locate("acme/tiny-1.5B") == HubModel("acme/tiny-1.5B", None)
    assert locate("acme/tiny", "v2") == HubModel("acme/tiny", "v2")
    assert locate("acme/tiny@v2") == HubModel("acme/tiny", "v2")


def test_a_folder_wins_over_a_hub_id_of_the_same_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "acme" / "tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert locate("acme/tiny") == LocalFolder((tmp_path / "acme" / "tiny").resolve())


@pytest.mark.parametrize("name", ["/no/such/folder", "./missing", "~/missing", "one", "a/b/c", ""])
def test_no_such_folder(name: str) -> None:
    with pytest.raises(EngineStartError, match=r"no folder .* hub id such as org/name, or bundled"):
        locate(name)


def test_a_file_is_not_a_folder(folder: Path) -> None:
    with pytest.raises(EngineStartError, match="is a file: name the folder"):
        locate(str(folder / "config.json"))


def test_two_revisions_contradict_each_other() -> None:
    with pytest.raises(EngineStartError, match="set one of them"):
        locate("acme/tiny@v1", "v2")


def test_inspect_reads_headers_only(folder: Path) -> None:
    found = inspect(folder)
    assert found.architecture == "LlamaForCausalLM"
    assert found.parameters == 32
    assert found.weights == (folder / "model.safetensors",)


@pytest.mark.parametrize(
    "architecture",
    [
        "OPTForCausalLM",
        "GPTNeoXForCausalLM",
        "FalconForCausalLM",
        "BloomForCausalLM",
    ],
)
def test_a_family_that_is_not_covered_is_named(folder: Path, architecture: str) -> None:
    write_config(folder, architectures=[architecture])
    with pytest.raises(EngineStartError, match=rf"does not cover {architecture} .*ENGINE=vllm"):
        inspect(folder)


def test_already_quantised_weights_are_refused(folder: Path) -> None:
    write_config(
        folder, architectures=["LlamaForCausalLM"], quantization_config={"quant_method": "awq"}
    )
    with pytest.raises(EngineStartError, match=r"already quantised with awq.* unquantised"):
        inspect(folder)


@pytest.mark.parametrize("cut", [1, 63, 64, 100, 170])
def test_a_truncated_weight_file(folder: Path, cut: int) -> None:
    write_weights(folder / "model.safetensors", cut=cut)
    with pytest.raises(EngineStartError, match=r"model\.safetensors is damaged or cut short"):
        inspect(folder)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, struct.pack("<Q", 4) + b"[1]\n"])
def test_a_corrupt_weight_file(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(EngineStartError, match="is damaged or cut short: download"):
        inspect(folder)


def test_weights_of_an_integer_type(folder: Path) -> None:
    write_weights(folder / "model.safetensors", dtype="I8")
    with pytest.raises(EngineStartError, match="weights of type I8: take a checkpoint in F32"):
        inspect(folder)


def test_missing_files_are_named(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(EngineStartError, match=r"no tokenizer\.json: make one with transformers"):
        inspect(folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(EngineStartError, match="no safetensors files: pickled weights"):
        inspect(folder)
    (folder / "config.json").write_text("{nope")
    with pytest.raises(EngineStartError, match="cannot be read"):
        inspect(folder)
    (folder / "config.json").unlink()
    with pytest.raises(EngineStartError, match=r"no config\.json"):
        inspect(folder)


def test_shards_are_counted_and_missed(folder: Path) -> None:
    names = ["model-1.safetensors", "model-2.safetensors"]
    index = {"weight_map": {f"w{i}": name for i, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    write_weights(folder / names[0])
    with pytest.raises(EngineStartError, match=r"lacks model-2\.safetensors: copy the missing"):
        inspect(folder)
    write_weights(folder / names[1])
    assert inspect(folder).parameters == 64


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "CONVERT_MODULES", ("json", "no_such_package"))
    with pytest.raises(
        EngineStartError, match=r"\(no_such_package\): pip install 'llm-gateway\[convert\]'"
    ):
        find.require_convert_extra()


def test_too_little_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2**30))
    find.require_space(tmp_path / "not" / "yet", 2**30, "x")
    with pytest.raises(EngineStartError, match=r"converting y needs about 2\.00 GiB .* 1\.00 GiB"):
        find.require_space(tmp_path, 2**31, "converting y")


def test_looking_costs_no_heavy_import() -> None:
    code = (
        "import sys, engine.registry, engine.models.find, engine.models.convert; "
        "sys.exit(any(m in sys.modules for m in "
        "('torch', 'transformers', 'onnx', 'onnx_ir', 'vllm', 'huggingface_hub', 'onnxruntime')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
