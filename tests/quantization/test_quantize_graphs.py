"""``model quantize`` on graphs that are no language models."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import example_graphs as graphs
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper
from quantize_command import Command, refuse

from engine.models.kernel import session_entries

SIDE = ("--dim", f"side={graphs.SIDE}")

# What each method turns products into, and how much of the signal has to survive, in dB.
MADE = {
    "int8": ("MatMulInteger", 30),
    "int8_block": ("MatMulNBits", 30),
    "int4": ("MatMulNBits", 12),
    "dynamic": ("DynamicQuantizeLinear", 30),
    "static": ("DequantizeLinear", 25),
}


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def outputs(path: Path, feeds: dict[str, Any]) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for key, value in session_entries().items():
        options.add_session_config_entry(key, value)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@pytest.mark.parametrize("method", MADE)
@pytest.mark.parametrize("graph", ["recommender", "classifier"])
def test_every_method_keeps_what_a_graph_computes(
    graph: str,
    method: str,
    model_command: Command,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    source, out = request.getfixturevalue(graph), tmp_path / "made"
    sides = SIDE if graph == "classifier" else ()
    report = model_command(
        "quantize", source, "--method", method, "--out", out, *sides, "--json"
    ).json
    operator, least_db = MADE[method]
    assert operators(out / "model.onnx")[operator] > 0
    assert report["difference"]["snr_db"] > least_db
    assert report["difference"]["cosine"] > 0.9
    assert report["size_before"] == source.stat().st_size
    assert report["size_after"] == (out / "model.onnx").stat().st_size
    assert json.loads((out / "quantization.json").read_text()) == report
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["made"]
    if graph == "recommender":
        assert report["size_after"] < 0.65 * report["size_before"]


def test_the_reported_difference_is_that_of_the_outputs(
    model_command: Command, recommender: Path, tmp_path: Path
) -> None:
    feeds = graphs.users(12)
    np.savez(tmp_path / "day.npz", **feeds)
    report = model_command(
        *("quantize", recommender, "--method", "int4", "--out", tmp_path / "made"),
        *("--calibration", tmp_path / "day.npz", "--batch", "12", "--json"),
    ).json
    exact = outputs(recommender, feeds).astype(np.float64)
    gap = outputs(tmp_path / "made" / "model.onnx", feeds) - exact
    got = report["difference"]
    assert got["max_abs"] == pytest.approx(np.abs(gap).max(), rel=1e-3)
    assert got["mean_abs"] == pytest.approx(np.abs(gap).mean(), rel=1e-3)
    wanted = 10 * np.log10((exact**2).sum() / (gap**2).sum())
    assert got["snr_db"] == pytest.approx(wanted, rel=1e-3)
    assert not report["notes"]


def test_a_table_is_printed_for_people(
    model_command: Command, recommender: Path, tmp_path: Path
) -> None:
    done = model_command("quantize", recommender, "--method", "static", "--out", tmp_path / "made")
    assert done.code == 0
    for text in ("recommender: static", "signal to noise", "cosine", "--calibration"):
        assert text in done.out
    assert "calibrating on 16 inputs" in done.err


def test_rows_are_independent_with_a_scale_per_token_and_not_with_one_per_tensor(
    model_command: Command, recommender: Path, tmp_path: Path
) -> None:
    feeds = graphs.users(6)
    feeds["dense"][0] *= 40  # a row that widens a scale it shares
    alone = {name: array[1:] for name, array in feeds.items()}
    same = {}
    for method in ("int8", "dynamic"):
        out = tmp_path / method
        assert model_command("quantize", recommender, "--method", method, "--out", out).code == 0
        together = outputs(out / "model.onnx", feeds)[1:]
        same[method] = np.array_equal(together, outputs(out / "model.onnx", alone))
    assert same == {"int8": True, "dynamic": False}


def input_scale(out: Path, name: str) -> float:
    """What one step of the quantised graph input ``name`` is worth."""
    model = onnx.load(out / "model.onnx")
    values = {tensor.name: tensor for tensor in model.graph.initializer}
    scales = [
        float(numpy_helper.to_array(values[node.input[1]]))
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] == name
    ]
    assert scales
    return scales[0]


def test_ranges_come_from_the_calibration_set(
    model_command: Command, classifier: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((40, 3, graphs.SIDE, graphs.SIDE)).astype(np.float32)
    images[0, 0, 0, 0], images[1, 0, 0, 0] = 50, -50
    np.save(tmp_path / "images.npy", images)

    def scale(name: str, *more: str) -> float:
        made = model_command(
            *("quantize", classifier, "--method", "static", "--out", tmp_path / name),
            *("--calibration", tmp_path / "images.npy", "--json", *more),
        ).json
        assert made["difference"]["inputs"] == "5 inputs of images.npy"
        assert not made["notes"]
        return input_scale(tmp_path / name, "image")

    widest = scale("minmax")
    assert widest == pytest.approx(100 / 255, rel=1e-4)
    assert scale("entropy", "--ranges", "entropy") < 0.5 * widest
    tight = scale("tight", "--ranges", "percentile", "--percentile", "99")
    loose = scale("loose", "--ranges", "percentile", "--percentile", "99.99")
    assert tight < loose < widest


def test_a_folder_of_arrays_and_only_so_many_samples(
    model_command: Command, recommender: Path, tmp_path: Path
) -> None:
    (tmp_path / "days").mkdir()
    for day in range(3):
        np.savez(tmp_path / "days" / f"{day}.npz", **graphs.users(8, day))
    report = model_command(
        *("quantize", recommender, "--method", "static", "--out", tmp_path / "made"),
        *("--calibration", tmp_path / "days", "--batch", "4", "--samples", "5", "--json"),
    ).json
    assert report["difference"]["inputs"] == "5 inputs of days"


def test_a_folder_keeps_its_layout_but_not_its_weights(
    model_command: Command, recommender: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "encoder"
    (folder / "onnx").mkdir(parents=True)
    (folder / "1_Pooling").mkdir()
    shutil.copyfile(recommender, folder / "onnx" / "model.onnx")
    (folder / "gateway_encoder.json").write_text('{"format": 1, "precision": "fp32"}')
    for name in ("tokenizer.json", "1_Pooling/config.json", "model.safetensors", "conversion.json"):
        (folder / name).write_text("{}")
    out = tmp_path / "made"
    assert model_command("quantize", folder, "--method", "int8", "--out", out).code == 0
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        *("1_Pooling/config.json", "gateway_encoder.json", "onnx/model.onnx"),
        *("quantization.json", "tokenizer.json"),
    }
    assert json.loads((out / "gateway_encoder.json").read_text())["precision"] == "int8"
    said = refuse(model_command, out, tmp_path / "again", method="int4")
    assert "is quantised already (int8)" in said
