"""Converting once: the cache, two processes at once, interruptions, and what is reported."""

from __future__ import annotations

import fcntl
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from convert_checkpoints import Converted, write_config, write_weights
from convert_hub_server import FakeHub

from engine.base import EngineStartError
from engine.config import EngineConfig
from engine.models import convert as module
from engine.models.convert import prepare
from engine.models.find import BundledModel
from engine.models.fingerprint import fingerprint
from engine.models.kernel import int8_kernel, session_entries
from engine.models.ship import label_of
from engine.onnx.prepared import MANIFEST_NAME, Manifest


def silent(_: str, __: float | None) -> None:
    pass


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_config(folder, architectures=["LlamaForCausalLM"])
    (folder / "tokenizer.json").write_text("{}")
    write_weights(folder / "model.safetensors")
    return folder


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the exporter by one that only writes a manifest; lists what it was asked for."""
    asked: list[str] = []

    def export(source: Path, out: Path, precision: Any, label: str, progress: Any) -> None:
        asked.append(f"{label} {precision}")
        out.mkdir()
        (out / "model.onnx").write_bytes(b"x")
        Manifest(1, 1, 16, 8, 64, precision, (2,), label, "LlamaForCausalLM").write(out)

    monkeypatch.setattr(module, "run_export", export)
    monkeypatch.setattr(module, "require_convert_extra", lambda: None)
    return asked


def config(tmp_path: Path) -> EngineConfig:
    return EngineConfig(cache_dir=tmp_path / "cache")


def test_converted_once_and_found_by_content(
    checkpoint: Path, tmp_path: Path, exports: list[str]
) -> None:
    first = prepare(str(checkpoint), "int8", config(tmp_path), silent)
    assert prepare(str(checkpoint), "int8", config(tmp_path), silent) == first
    moved = tmp_path / "elsewhere" / "tiny"
    shutil.copytree(checkpoint, moved)
    assert prepare(str(moved), "int8", config(tmp_path), silent) == first
    assert exports == ["tiny int8"]
    assert prepare(str(checkpoint), "int4", config(tmp_path), silent) != first
    write_weights(checkpoint / "model.safetensors", size=128)
    assert prepare(str(checkpoint), "int8", config(tmp_path), silent) != first
    assert exports == ["tiny int8", "tiny int4", "tiny int8"]


def test_the_second_look_hashes_nothing(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index.json"
    first = fingerprint(checkpoint, index)
    monkeypatch.setattr("engine.models.fingerprint.file_digest", None)
    assert fingerprint(checkpoint, index) == first


def test_a_prepared_folder_is_used_as_it_is(
    checkpoint: Path, tmp_path: Path, exports: list[str]
) -> None:
    made = prepare(str(checkpoint), "int8", config(tmp_path), silent)
    assert prepare(str(made), "auto", config(tmp_path), silent) == made
    assert prepare(str(made), "int8", config(tmp_path), silent) == made
    with pytest.raises(EngineStartError, match=r"prepared as int8 .* asks for int4"):
        prepare(str(made), "int4", config(tmp_path), silent)
    assert len(exports) == 1


def test_an_interrupted_conversion_leaves_nothing(
    checkpoint: Path, tmp_path: Path, exports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    working = module.run_export

    def fail(source: Path, out: Path, *_: Any) -> None:
        out.mkdir()
        (out / "model.onnx").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "run_export", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare(str(checkpoint), "int8", config(tmp_path), silent)
    store = tmp_path / "cache" / "onnx"
    assert not list(store.rglob("model.onnx"))
    name = f"tiny-int8-{fingerprint(checkpoint, tmp_path / 'i')[:16]}"
    killed = store / f".{name}.making-abc"
    killed.mkdir()  # what a process that was killed leaves
    monkeypatch.setattr(module, "run_export", working)
    prepare(str(checkpoint), "int8", config(tmp_path), silent)
    assert not killed.exists()


def test_two_at_once_convert_once(checkpoint: Path, tmp_path: Path, exports: list[str]) -> None:
    made = prepare(str(checkpoint), "int8", config(tmp_path), silent)
    shutil.rmtree(made)
    stages: list[str] = []
    with made.with_suffix(".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        thread = threading.Thread(
            target=prepare,
            args=(str(checkpoint), "int8", config(tmp_path), lambda s, _: stages.append(s)),
        )
        thread.start()
        deadline = time.monotonic() + 10
        while not any("waiting for another process" in s for s in stages):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        made.mkdir()
        (made / MANIFEST_NAME).write_text("{}")  # what the other process leaves
    thread.join(10)
    assert exports == ["tiny int8"]


def test_no_space_is_found_before_the_export(
    checkpoint: Path, tmp_path: Path, exports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(EngineStartError, match=r"converting tiny needs about .* MODEL_CACHE_DIR"):
        prepare(str(checkpoint), "int8", config(tmp_path), silent)
    assert exports == []


def test_a_cache_that_cannot_be_written(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(EngineStartError, match=r"cannot be used .* set MODEL_CACHE_DIR"):
        prepare(str(checkpoint), "int8", config(tmp_path), silent)


def test_the_hub_id_goes_through_download_and_conversion(
    checkpoint: Path, tmp_path: Path, exports: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {p.name: p.read_bytes() for p in checkpoint.iterdir()}
    with FakeHub("acme/tiny", files) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        made = prepare("acme/tiny", "auto", config(tmp_path), silent)
    assert made.name.startswith("acme--tiny-")
    assert exports == [f"acme/tiny {module.DEFAULT_PRECISION}"]


def test_what_the_exporter_says_reaches_the_message(tmp_path: Path, convert_extra: None) -> None:
    with pytest.raises(EngineStartError, match="converting x to int8 failed: the exporter said"):
        module.run_export(tmp_path / "nothing", tmp_path / "out", "int8", "x", silent)


@pytest.mark.slow
def test_an_export_that_computes_something_else_is_refused(
    converted: Callable[[str], Converted], tmp_path: Path
) -> None:
    import onnx_ir as ir

    from engine.models.export import ExportError, check
    from engine.models.verify import reference

    pair = converted("llama")
    folder = pair.variant("fp32")
    expected = reference(pair.checkpoint)
    check(ir.load(folder / "model.onnx"), tmp_path, Manifest.read(folder), expected)
    wrong = replace(expected, logits=expected.logits * 1.01)
    with pytest.raises(ExportError, match=r"not compute what transformers does .* ENGINE=vllm"):
        check(ir.load(folder / "model.onnx"), tmp_path, Manifest.read(folder), wrong)


def test_the_bundled_model_needs_no_conversion(tmp_path: Path, exports: list[str]) -> None:
    place = BundledModel()
    assert prepare("bundled", "auto", config(tmp_path), silent) == place.shipped
    assert exports == []
    prepare("bundled", "int4", config(tmp_path), silent)
    assert exports == ["bundled int4"]


def test_the_shipped_model_was_made_from_the_checkpoint_beside_it() -> None:
    place = BundledModel()
    manifest = Manifest.read(place.shipped)
    assert manifest.source == label_of(place.checkpoint), "run: python -m engine.models.ship"
    both = [p for f in (place.shipped, place.checkpoint) for p in f.iterdir()]
    assert sum(p.stat().st_size for p in both) < 16 * 2**20


def test_the_kernel_choice_is_exact_here() -> None:
    assert int8_kernel() in ("u8s8", "u8u8")
    wanted = "0" if int8_kernel() == "u8s8" else "1"
    assert session_entries() == {"session.x64quantprecision": wanted}
