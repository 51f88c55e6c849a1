"""The whole answer: replicas that the simulation confirms, prices, and advice."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import capacity_models as known
import pytest

from engine.capacity import CapacityError
from engine.capacity.advice_report import advice_gpu
from engine.capacity.decide import Target
from engine.capacity.gpus import find_gpu
from engine.capacity.memory import Serving
from engine.capacity.model import Model, open_model
from engine.capacity.planner import plan_gpu
from engine.capacity.prices import age_warning, read_prices
from engine.capacity.question import Question
from engine.capacity.roofline import Efficiency
from engine.capacity.traffic import Traffic, parse_lengths

TRAFFIC = Traffic(6.0, parse_lengths("lognormal:600,1800"), parse_lengths("exponential:200"))
TODAY = date(2026, 11, 21)


@pytest.fixture
def llama(tmp_path: Path) -> Model:
    return open_model(known.written(tmp_path, known.LLAMA_8B))


def planned(model: Model, gpu: str, target: Target, **changes: Any) -> dict[str, Any]:
    names = set(Question.__dataclass_fields__)
    asked = {name: value for name, value in changes.items() if name in names}
    serving = {name: value for name, value in changes.items() if name not in names}
    question = Question(
        model, asked.pop("traffic", TRAFFIC), target, read_prices(), requests=400, today=TODAY
    )
    question = replace(question, **asked)
    return plan_gpu(question, find_gpu(gpu), Serving(**serving), Efficiency())


def test_the_simulation_confirms_the_answer(llama: Model) -> None:
    found = planned(llama, "l4", Target(1.5, 0.07), quantization="fp8")
    assert found["simulation"]["ttft_ms"] <= 1500
    assert found["simulation"]["itl_ms"] <= 70
    assert found["replicas"] >= found["replicas_by_formula"] > 1
    assert found["formula"]["utilization"] <= 0.7
    memory = found["memory"]
    assert memory["kv_bytes"] == memory["usable_bytes"] - sum(
        memory[f"{part}_bytes"] for part in ("weights", "activations", "context", "cuda_graphs")
    )
    assert memory["blocks"] == memory["kv_bytes"] // memory["block_bytes"]


def test_a_tighter_target_needs_no_fewer_replicas(llama: Model) -> None:
    loose = planned(llama, "l4", Target(5.0, 0.2), quantization="fp8")
    tight = planned(llama, "l4", Target(0.8, 0.05), quantization="fp8")
    assert tight["replicas"] >= loose["replicas"]
    assert tight["cost"]["monthly_on_demand"] >= loose["cost"]["monthly_on_demand"]


def test_what_is_impossible_names_the_bound_that_is_hit(llama: Model) -> None:
    with pytest.raises(CapacityError, match=r"one sequence alone .*memory bandwidth is the bound"):
        planned(llama, "l4", Target(None, 0.02))
    with pytest.raises(CapacityError, match=r"a prompt of .*compute is the bound"):
        planned(llama, "l4", Target(0.05, None))


def test_replicas_of_several_gpus_are_taken_where_one_is_too_small(tmp_path: Path) -> None:
    model = open_model(known.written(tmp_path, known.LLAMA_70B))
    found = planned(model, "h100", Target(3.0, 0.1))
    assert found["hardware"]["gpus_per_replica"] == 2
    assert found["settings"]["TENSOR_PARALLEL_SIZE"] == "2"
    with pytest.raises(CapacityError, match="does not fit on NVIDIA H100"):
        planned(model, "h100", Target(), tensor_parallel=1)


def test_traffic_longer_than_the_context_is_refused_or_cut(tmp_path: Path) -> None:
    model = open_model(known.written(tmp_path, known.PHI_2))
    long = replace(TRAFFIC, prompt=parse_lengths("lognormal:600,3000"))
    with pytest.raises(CapacityError, match="takes 2048: give shorter"):
        planned(model, "l4", Target(), traffic=long)
    fixed = replace(long, output=parse_lengths("200"))
    found = planned(model, "l4", Target(), traffic=fixed, max_model_len=2048)
    assert found["settings"]["MAX_MODEL_LEN"] == "2048"


@pytest.mark.parametrize(
    ("gpu", "quantization", "said"),
    [
        ("b200", "int8", "int8 does not run on NVIDIA B200"),
        ("l4", "w3a3", "take auto or one of none, fp8, int8, awq"),
    ],
)
def test_a_method_that_cannot_run_is_refused(
    llama: Model, gpu: str, quantization: str, said: str
) -> None:
    with pytest.raises(CapacityError, match=said):
        planned(llama, gpu, Target(), quantization=quantization)


def advised(model: Model, gpu: str) -> dict[str, Any]:
    return advice_gpu(model, find_gpu(gpu), Serving(), TRAFFIC, read_prices(), today=TODAY)


def test_native_fp8_is_advised_where_there_are_fp8_units(llama: Model) -> None:
    for gpu in ("l4", "h100", "b200"):
        found = advised(llama, gpu)
        assert found["recommended"] == "fp8"
        assert found["settings"]["QUANTIZATION"] == "fp8"
        assert "multiplies in FP8 itself" in found["why"]


def test_an_a100_has_weight_only_fp8_and_keeps_16_bits_where_they_fit(llama: Model) -> None:
    found = advised(llama, "a100-80")
    assert found["recommended"] == "none"
    by_method = {choice["method"]: choice for choice in found["choices"]}
    assert "no fp8 units" in by_method["fp8"]["note"]
    assert by_method["int8"]["full_tokens_per_s"] > 1.5 * by_method["none"]["full_tokens_per_s"]
    assert "625 days old" in found["price"]["warning"]


def test_a_t4_needs_fewer_bits_and_float16(llama: Model) -> None:
    found = advised(llama, "t4")
    assert found["choices"][0]["refused"].startswith("does not fit")
    assert found["recommended"] != "none"
    assert found["settings"]["DTYPE"] == "float16"
    assert found["price"] is None


def test_a_quantised_checkpoint_is_served_as_it_is(tmp_path: Path) -> None:
    config = known.LLAMA_8B | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    model = open_model(known.written(tmp_path, config))
    found = advised(model, "t4")
    assert [choice["method"] for choice in found["choices"]] == ["auto"]
    assert found["settings"]["QUANTIZATION"] == "auto"


def test_another_quantisation_than_the_checkpoints_is_refused(tmp_path: Path) -> None:
    config = known.LLAMA_8B | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    model = open_model(known.written(tmp_path, config))
    with pytest.raises(CapacityError, match="QUANTIZATION=fp8, but the weights"):
        planned(model, "l4", Target(), quantization="fp8")
    assert planned(model, "l4", Target(), quantization="awq")["settings"]["QUANTIZATION"] == "auto"


def test_fp8_kv_without_fp8_units_comes_with_a_note(llama: Model) -> None:
    found = planned(llama, "a100-80", Target(), kv_dtype="fp8")
    assert found["memory"]["kv_bytes_per_token"] == 65_536
    assert any("no FP8 units" in note for note in found["notes"])
    assert planned(llama, "h100", Target(), kv_dtype="fp8")["notes"] == []


def test_a_model_that_nothing_makes_fit_is_refused_with_every_reason(tmp_path: Path) -> None:
    model = open_model(known.written(tmp_path, known.LLAMA_70B))
    with pytest.raises(CapacityError, match=r"cannot be served on one NVIDIA T4: .*AWQ.*not fit"):
        advised(model, "t4")


def test_shipped_prices_have_a_date_a_region_and_a_source() -> None:
    listed = read_prices()
    assert {price.gpu for price in listed.entries} >= {"l4", "a100-40", "a100-80", "h100", "h200"}
    for price in listed.entries:
        assert find_gpu(price.gpu).name == price.gpu
        assert "https://" in price.source
        assert price.region
        assert date(2025, 1, 1) < price.as_of <= TODAY
        assert price.on_demand is not None
        assert price.spot is None or price.spot < price.on_demand


def test_old_prices_are_warned_about() -> None:
    price = replace(read_prices().entries[0], as_of=date(2026, 8, 1))
    assert age_warning(price, date(2026, 10, 30)) == ""
    assert "91 days old" in age_warning(price, date(2026, 10, 31))


def test_prices_of_ones_own_in_json_and_yaml(tmp_path: Path) -> None:
    entry = {
        "machine": "mine",
        "gpu": "L40S",
        "gpus": 4,
        "region": "cellar",
        "on_demand": 4.0,
        "spot": None,
        "as_of": "2026-11-01",
        "source": "an invoice",
    }
    as_json = tmp_path / "prices.json"
    as_json.write_text(json.dumps({"currency": "EUR", "entries": [entry]}), encoding="utf-8")
    as_yaml = tmp_path / "prices.yaml"
    lines = "\n".join(f"    {name}: {value or 'null'}" for name, value in entry.items())
    as_yaml.write_text("currency: EUR\nentries:\n  -\n" + lines + "\n", encoding="utf-8")
    for file in (as_json, as_yaml):
        listed = read_prices(file)
        cost = listed.cost("l40s", 2, 3)  # two replicas of two GPUs share a machine
        assert cost is not None
        assert (cost.machines, cost.monthly(), cost.currency) == (2, 8 * 730, "EUR")
        assert cost.monthly(spot=True) is None
        assert cost.per_million(1000.0) == pytest.approx(8 / 3.6)
        assert listed.cost("l40s", 2, 3, "elsewhere") is None
        larger = listed.cost("l40s", 8, 1)
        assert larger is not None
        assert larger.machines == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "no list of entries"),
        ('{"entries": [{"machine": "x"}]}', "entry 1: KeyError 'as_of'"),
    ],
)
def test_a_faulty_price_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "prices.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CapacityError, match=said):
        read_prices(file)
    with pytest.raises(CapacityError, match="cannot be read"):
        read_prices(tmp_path / "none.json")


def test_lengths_are_what_was_written(tmp_path: Path) -> None:
    assert parse_lengths("512").mean == 512
    uniform = parse_lengths("uniform:100-300")
    assert uniform.mean == pytest.approx(200, rel=0.01)
    assert parse_lengths("exponential:250").mean == pytest.approx(250, rel=0.01)
    skewed = parse_lengths("lognormal:700,2000")
    assert skewed.percentile(0.5) == pytest.approx(700, rel=0.01)
    assert skewed.percentile(0.95) == pytest.approx(2000, rel=0.01)
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"input_tokens": 10}\n30\n', encoding="utf-8")
    assert parse_lengths(f"@{trace}", "input_tokens").quantiles == (10, 30)


@pytest.mark.parametrize("text", ["", "many", "0", "uniform:9-3", "lognormal:9", "zipf:3", "@none"])
def test_lengths_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(CapacityError, match=r"no distribution of lengths|cannot be read"):
        parse_lengths(text)


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(CapacityError, match="give a positive rate"):
        Traffic(0.0, parse_lengths("1"), parse_lengths("1"))
