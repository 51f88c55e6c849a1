"""``model quantize`` when it cannot: one sentence, and nothing half written."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import example_graphs as graphs
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from quantize_command import Command, refuse

from engine.quantization import methods, whole_folder
from engine.quantization.report import Options, QuantizationError


def test_what_cannot_be_read_is_named(
    model_command: Command, recommender: Path, classifier: Path, tmp_path: Path
) -> None:
    out = tmp_path / "made"

    def save(name: str, **changed: Any) -> Path:
        np.savez(tmp_path / name, **(graphs.users(4) | changed))
        return tmp_path / name

    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x08 not a graph")
    (tmp_path / "broken.npz").write_bytes(b"not numpy")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    far = graphs.users(4)["items"].copy()
    far[0, 0] = graphs.ITEMS
    np.savez(tmp_path / "names.npz", user=np.zeros(4, np.int64))
    with_data = ["--calibration"]
    cases = [
        (("nowhere.onnx", out), "there is no nowhere.onnx"),
        ((tmp_path / "notes.txt", out), "is not an .onnx file"),
        ((tmp_path / "broken.onnx", out), "is not a readable ONNX model"),
        ((classifier, out), "give its size with --dim side=128"),
        ((recommender, out, "--dim", "width=3"), "no input has a dimension 'width'"),
        ((recommender, out, "--dim", "width"), "--dim is name=number"),
        ((recommender, tmp_path / "full"), "exists and is not empty"),
        ((recommender, out, *with_data, tmp_path / "none.npz"), "there is no"),
        ((recommender, out, *with_data, tmp_path / "full"), "holds no .npz or .npy files"),
        ((recommender, out, *with_data, tmp_path / "notes.txt"), "is not a .npz or .npy file"),
        ((recommender, out, *with_data, tmp_path / "broken.npz"), "cannot be read"),
        ((recommender, out, *with_data, tmp_path / "names.npz"), "save one array per input"),
        (
            (recommender, out, *with_data, save("wide.npz", dense=np.zeros((4, 9), "f4"))),
            "dense has shape [4, 9]",
        ),
        ((recommender, out, *with_data, save("far.npz", items=far)), "chooses among 80 rows"),
    ]
    for (source, target, *more), expected in cases:
        assert expected in refuse(model_command, source, target, *more)
    said = refuse(model_command, recommender, out, method="int3")
    assert "there is no method 'int3'" in said
    assert "int8_block" in said


def test_a_graph_without_products_is_refused(model_command: Command, tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    shape = ["batch", 4]
    graph = helper.make_graph(
        [node],
        "relu",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8),
        tmp_path / "relu.onnx",
    )
    for method in ("int8", "int4", "dynamic"):
        said = refuse(model_command, tmp_path / "relu.onnx", tmp_path / "made", method=method)
        assert "found nothing to quantise" in said


@pytest.mark.parametrize("command", ["quantize", "bench"])
def test_a_missing_package_is_said_with_its_extra(
    command: str, recommender: Path, tmp_path: Path
) -> None:
    more = ["--method", "int8", "--out", str(tmp_path / "made")] if command == "quantize" else []
    script = (
        "import sys; sys.modules['onnx_ir'] = None; from gateway.cli import main;"
        f"sys.argv = ['llm-gateway', 'model', {command!r}, {str(recommender)!r}, *{more!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "(onnx_ir): pip install 'llm-gateway[convert]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "made").exists()


def test_a_full_disk_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, model_command: Command, recommender: Path, tmp_path: Path
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("engine.quantization.onnx_methods.copy_companions", full)
        assert "no space for" in refuse(model_command, recommender, tmp_path / "made")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(whole_folder.shutil, "disk_usage", lambda _: usage)
    assert "no space for" in refuse(model_command, recommender, tmp_path / "made")


def test_an_interrupted_run_leaves_nothing(recommender: Path, tmp_path: Path) -> None:
    def interrupt(stage: str, _: float | None) -> None:
        if stage == "comparing with the original":
            assert list(tmp_path.iterdir()) != []
            raise KeyboardInterrupt

    options = Options(method="int8", say=interrupt)
    with pytest.raises(KeyboardInterrupt):
        methods.quantize(str(recommender), tmp_path / "made", options)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(QuantizationError, match="cannot be written"):
        methods.quantize(str(recommender), tmp_path / "file" / "made", Options(method="int8"))


def test_a_killed_run_leaves_no_folder_and_the_next_one_cleans_up(
    model_command: Command, recommender: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "years.npz", **graphs.users(200_000))
    place = tmp_path / "place"
    place.mkdir()
    command = ["quantize", str(recommender), "--method", "static", "--out", str(place / "made")]
    long = ["--calibration", str(tmp_path / "years.npz"), "--batch", "2", "--samples", "100000"]
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", "model", *command, *long],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            said = next(line for line in process.stderr if line.startswith("calibrating on"))
        finally:
            process.send_signal(signal.SIGKILL)
    assert said == "calibrating on 100000 inputs\n"
    assert not (place / "made").exists()
    assert list(place.iterdir())
    assert model_command(*command).code == 0
    assert [path.name for path in place.iterdir()] == ["made"]
