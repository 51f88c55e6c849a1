"""The CPU's step times against what was measured, from calibrations that were kept.

Timing in a test would measure the machine's other work; so the calibrations are files, and the
figures those that docs/benchmarks.md and docs/capacity.md record for the same processor.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import capacity_models as known
import pytest

from engine.capacity import CapacityError
from engine.capacity.calibrate import (
    GRAPHS,
    PRECISIONS,
    ROWS,
    Calibration,
    calibrate,
    last_level_cache,
    load,
)
from engine.capacity.cpu import NODES, CpuStep, weight_bytes
from engine.capacity.model import open_model
from engine.capacity.queueing import pairs
from engine.capacity.roofline import Work
from engine.models.find import BUNDLED_ROOT
from engine.onnx.prepared import Manifest

HERE = Path(__file__).parent
ONE_THREAD = HERE / "calibration_one_thread.json"
TWO_THREADS = HERE / "calibration_two_threads.json"
QWEN25_05B = known.LLAMA_8B | {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}


def prompt(tokens: int) -> Work:
    return Work(prefill=tokens, prefill_pairs=pairs(0, tokens))


@pytest.mark.parametrize(
    ("config", "recorded", "prefill"),
    [
        (known.SMOLLM2_135M, {1: 101, 4: 327, 8: 495, 16: 641}, 1053),
        (QWEN25_05B, {1: 45, 4: 150, 8: 246, 16: 330}, 665),
    ],
    ids=["135M", "0.5B"],
)
def test_recorded_benchmarks_are_predicted_within_35_percent(
    tmp_path: Path, config: dict[str, Any], recorded: dict[int, int], prefill: int
) -> None:
    """Tokens per second of int8 on two threads (docs/benchmarks.md)."""
    model = open_model(known.written(tmp_path, config))
    step = CpuStep(model, "int8", load(TWO_THREADS))
    for streams, rate in recorded.items():
        context = streams * (64 + 32)
        assert streams / step(Work(streams, context, context)) == pytest.approx(rate, rel=0.35)
    assert 512 / step(prompt(512)) == pytest.approx(prefill, rel=0.35)


@pytest.mark.parametrize(
    ("config", "steps", "prefill"),
    [
        (None, {1: 0.37, 4: 0.65, 16: 2.32}, 32.84),
        (known.SMOLLM2_135M, {1: 14.00, 4: 19.02, 16: 38.00}, 591.1),
    ],
    ids=["bundled", "135M"],
)
def test_steps_measured_by_hand_are_predicted_within_45_percent(
    tmp_path: Path, config: dict[str, Any] | None, steps: dict[int, float], prefill: float
) -> None:
    """CPU milliseconds of int8 on one thread (docs/capacity.md)."""
    source = "bundled" if config is None else known.written(tmp_path, config)
    step = CpuStep(open_model(source), "int8", load(ONE_THREAD))
    for streams, milliseconds in steps.items():
        context = streams * 94
        found = step(Work(streams, context, context)) * 1000
        assert found == pytest.approx(milliseconds, rel=0.45)
    assert step(prompt(512)) * 1000 == pytest.approx(prefill, rel=0.45)


def test_the_size_of_a_prepared_model_is_foreseen() -> None:
    shipped = BUNDLED_ROOT / "onnx"
    precision = Manifest.read(shipped).precision
    size = (shipped / "model.onnx").stat().st_size
    assert weight_bytes(open_model("bundled").weights, precision) == pytest.approx(size, rel=0.15)


def test_the_graphs_have_as_many_operators_as_is_reckoned_with() -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(BUNDLED_ROOT / "onnx" / "model.onnx")).graph
    per_layer, rest = NODES["int8"]
    assert len(graph.node) == per_layer * 4 + rest


def test_shipped_calibration_graphs_are_what_the_script_makes(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from engine.capacity.calibration.make import main

    main(tmp_path)
    shipped = {path.name: path.read_bytes() for path in GRAPHS.glob("*.onnx")}
    assert shipped == {path.name: path.read_bytes() for path in tmp_path.glob("*.onnx")}
    assert sum(map(len, shipped.values())) < 200_000


def test_a_calibration_measures_and_is_kept(tmp_path: Path) -> None:
    stages: list[str] = []
    found = calibrate(1, lambda stage, share: stages.append(stage), seconds=0.0)
    assert stages
    assert found.bandwidth > 0
    assert found.operator > 0
    for precision in PRECISIONS:
        assert set(found.cache[precision]) == set(ROWS)
        assert min(found.memory[precision]) == 1
        assert all(seconds > 0 for seconds in found.cache[precision].values())
    file = tmp_path / "new" / "calibration.json"
    found.save(file)
    assert load(file) == found


def test_a_faulty_calibration_is_named(tmp_path: Path) -> None:
    file = tmp_path / "calibration.json"
    with pytest.raises(CapacityError, match="has not been measured: add --calibrate"):
        load(file)
    for text in ("{", "{}", json.dumps({"memory": [], "cache": {}})):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(CapacityError, match="is no calibration"):
            load(file)
    with pytest.raises(CapacityError, match="cannot be kept"):
        load(ONE_THREAD).save(file / "below-a-file.json")


def test_a_curve_is_followed_between_and_beyond_its_points(tmp_path: Path) -> None:
    flat = {precision: {1: 1e-10, 4: 1e-10, 16: 2e-10} for precision in PRECISIONS}
    cache = {
        precision: {1: 1e-11, 4: 1e-11, 16: 5e-11, 64: 1e-10, 256: 4e-10} for precision in flat
    }
    attend = {"one": 0.0, "many": 0.0}
    small = Calibration("cpu", 1, 1e10, 0.0, flat, cache, attend, 1 << 30)
    model = open_model(known.written(tmp_path, known.SMOLLM2_135M))
    in_cache = CpuStep(model, "int8", small)
    assert in_cache.in_cache
    assert in_cache.per_weight(10) == pytest.approx(3e-11)
    assert in_cache.per_weight(512) == pytest.approx(8e-10)
    in_memory = CpuStep(model, "int8", Calibration("cpu", 1, 1e10, 0.0, flat, cache, attend, 1))
    assert not in_memory.in_cache
    assert in_memory.per_weight(10) == pytest.approx(1.5e-10)
    # Reading is never quicker with more rows, whatever the products in the caches take.
    assert in_memory.per_weight(64) == pytest.approx(2e-10)
    assert in_memory.per_weight(256) == pytest.approx(4e-10)


def test_the_last_level_cache_is_read(tmp_path: Path) -> None:
    for index, size in enumerate(("32K", "1024K", "32M")):
        (tmp_path / f"index{index}").mkdir()
        (tmp_path / f"index{index}" / "size").write_text(f"{size}\n", encoding="utf-8")
    assert last_level_cache(tmp_path) == 32 * 1024**2
    assert last_level_cache(tmp_path / "none") == 0
