"""``model bench``: what is measured, what stands in for what is missing, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import example_graphs as graphs
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from quantize_command import Command

from engine.environments import EnvironmentMissing, interpreter
from engine.quantization.bench import Plan, bench
from engine.quantization.providers import Provider, probe
from engine.quantization.report import QuantizationError
from engine.quantization.sources import existing_graph
from engine.quantization.synthetic import graph_inputs, sized, synthetic

SHORT = ("--rounds", "2", "--seconds", "0.02", "--threads", "1")


def test_graphs_side_by_side(
    model_command: Command, recommender: Path, classifier: Path, tmp_path: Path
) -> None:
    done = model_command(
        *("bench", recommender, classifier, *SHORT, "--batch", "1,4", "--provider", "cpu"),
        *("--dim", f"side={graphs.SIDE}", "--out", tmp_path / "bench.json"),
    )
    assert done.code == 0, done.err
    assert "samples/s" in done.out
    assert "round 2: classifier on cpu" in done.err
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["machine"]["physical_cores"] >= 1
    assert found["settings"]["rounds"] == 2
    rows = found["rows"]
    assert [(row["model"], row["batch"]) for row in rows] == [
        *(("recommender", 1), ("recommender", 4)),
        *(("classifier", 1), ("classifier", 4)),
    ]
    for row in rows:
        assert row["error"] == ""
        assert (row["asked"], row["ran_on"], row["reason"]) == ("cpu", "cpu", "")
        latency = row["latency_ms"]
        assert 0 < latency["median"] <= latency["p95"] <= latency["p99"]
        assert latency["runs"] >= 20
        rate = row["throughput"]
        assert 0 < rate["min"] <= rate["median"] <= rate["max"]
        assert row["cpu_ms"]["median"] > 0
        assert row["unit"] == "samples"
        assert row["peak_rss_mib"] > 10
        assert row["onnxruntime"] == ort.__version__


def test_variants_of_a_decoder(model_command: Command, decoder: Path, tmp_path: Path) -> None:
    out = tmp_path / "dynamic"
    assert model_command("quantize", decoder, "--method", "dynamic", "--out", out).code == 0
    lengths = ("--prompt", "300", "--tokens", "4", "--batch", "3", "--provider", "cpu")
    done = model_command("bench", decoder, out, *SHORT, *lengths, "--json")
    exact, dynamic = done.json["rows"]
    assert (exact["model"], dynamic["model"]) == ("fp32", "dynamic")
    for row in (exact, dynamic):
        assert row["error"] == ""
        assert row["unit"] == "tokens"
        assert row["batch"] == 3
        assert row["prefill"]["median"] > 0
        assert row["prefill_cpu_ms"]["median"] > 0
        assert row["latency_ms"]["runs"] % 4 == 0
    assert dynamic["size_bytes"] < exact["size_bytes"]
    table = model_command("bench", decoder, *SHORT, *lengths)
    assert "prefill tok/s" in table.out


def test_a_provider_that_is_not_here_is_named_and_the_cpu_measured(
    model_command: Command, recommender: Path
) -> None:
    if "TensorrtExecutionProvider" in ort.get_available_providers():
        pytest.skip("this onnxruntime has TensorRT")
    asked = ("bench", recommender, *SHORT, "--batch", "2", "--provider", "cpu,tensorrt")
    cpu, row = model_command(*asked, "--json").json["rows"]
    assert (row["asked"], row["ran_on"]) == ("tensorrt", "cpu")
    assert "built without TensorrtExecutionProvider" in row["reason"]
    assert row["latency_ms"] == cpu["latency_ms"]  # the same run: nothing is measured twice
    assert "recommender: tensorrt ran on cpu, because this onnxruntime" in model_command(*asked).out


def openvino() -> Path:
    try:
        return interpreter("openvino")
    except EnvironmentMissing as error:
        pytest.skip(str(error))


def test_openvino_runs_what_it_can_and_says_what_it_cannot(
    model_command: Command, recommender: Path, decoder: Path, tmp_path: Path
) -> None:
    openvino()
    out = tmp_path / "int8"
    assert model_command("quantize", recommender, "--method", "int8", "--out", out).code == 0
    done = model_command(
        *("bench", recommender, out, decoder, *SHORT, "--batch", "2", "--prompt", "16"),
        *("--tokens", "4", "--provider", "openvino", "--json"),
    )
    exact, per_token, prefilled = done.json["rows"]
    assert (exact["ran_on"], exact["reason"], exact["error"]) == ("openvino", "", "")
    assert exact["placed"]["OpenVINOExecutionProvider"] >= 1
    assert exact["latency_ms"]["median"] > 0
    assert (per_token["ran_on"], per_token["error"]) == ("cpu", "")
    assert "it cannot run this graph: " in per_token["reason"]
    assert (prefilled["ran_on"], prefilled["error"]) == ("openvino", "")
    assert prefilled["prefill"]["median"] > 0


def test_the_worker_needs_little_of_its_interpreter() -> None:
    script = (
        "import sys, engine.quantization.worker, engine.onnx.session, engine.onnx.prepared;"
        "print([m for m in ('onnx', 'onnx_ir', 'tokenizers', 'pydantic', 'rich', 'typer', 'torch',"
        " 'gateway') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=root, check=True
    )
    assert done.stdout == "[]\n"


def test_a_process_that_cannot_start_is_an_error_in_its_row(
    monkeypatch: pytest.MonkeyPatch, recommender: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no memory >&2\nkill -9 $$\n")
    broken.chmod(0o755)
    model = existing_graph(recommender)
    assert model is not None
    for python, said in ((broken, "signal 9: no memory"), (tmp_path / "none", "cannot be started")):
        provider = Provider("cpu", python)
        monkeypatch.setattr(
            "engine.quantization.bench.probe", lambda *_, chosen=provider, **__: chosen
        )
        (row,) = bench(Plan((model,), batches=(2,), rounds=1, seconds=0.01))
        assert said in row.error
        assert row.latency_ms is None


def test_what_is_asked_wrongly_is_refused(
    model_command: Command, recommender: Path, decoder: Path, tmp_path: Path
) -> None:
    node = helper.make_node("MatMul", ["x", "x"], ["y"])
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 4]) for name in "xy"]
    graph = helper.make_graph([node], "square", values[:1], values[1:])
    fixed = tmp_path / "square.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), fixed)
    cases = [
        (("nowhere.onnx",), "there is no nowhere.onnx"),
        ((recommender, "--provider", "npu"), "there is no execution provider 'npu'"),
        ((recommender, "--batch", "0"), "--batch takes numbers"),
        ((recommender, "--threads", "many"), "--threads takes numbers"),
        ((recommender, "--precision", "int2"), "there is no precision 'int2'"),
        ((recommender, "--dim", "side=3"), "no graph has a dimension 'side'"),
        ((fixed, "--batch", "2"), "has a fixed batch of 4"),
        ((decoder, "--prompt", "510"), "was made for 512 tokens"),
    ]
    for arguments, expected in cases:
        assert expected in model_command("bench", *arguments, *SHORT[:4]).refusal
    (row,) = model_command("bench", fixed, *SHORT, "--provider", "cpu", "--json").json["rows"]
    assert row["batch"] == 4


def test_synthetic_inputs_stay_inside_the_tables(recommender: Path) -> None:
    inputs = graph_inputs(recommender)
    assert {value.name: value.rows for value in inputs} == {
        "user": graphs.USERS,
        "items": graphs.ITEMS,
        "dense": None,
    }
    feeds = synthetic(inputs, 500, {}, np.random.default_rng(0))
    assert feeds["items"].shape == (500, 4)
    assert feeds["items"].dtype == np.int64
    assert feeds["items"].max() == graphs.ITEMS - 1
    assert feeds["user"].max() == graphs.USERS - 1
    assert feeds["dense"].dtype == np.float32


def test_open_dimensions_take_the_sizes_that_are_given(classifier: Path) -> None:
    inputs = graph_inputs(classifier)
    assert sized(inputs, 3, {"side": 9}) == {"image": (3, 3, 9, 9)}
    assert sized(inputs, 3, {"side": 9, "batch": 1}) == {"image": (1, 3, 9, 9)}
    with pytest.raises(QuantizationError, match="open dimension side"):
        sized(inputs, 3, {})
    with pytest.raises(QuantizationError, match="the open ones are batch, side"):
        sized(inputs, 3, {"width": 9})


def test_the_cpu_is_always_here() -> None:
    provider = probe("cpu", install=False, say=lambda _: None)
    assert (provider.missing, provider.python) == ("", Path(sys.executable))
