"""``llm-gateway plan`` and ``model advise`` as they are typed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import capacity_models as known
import pytest
from typer.testing import CliRunner

from gateway.cli import app
from gateway.settings import Settings

CALIBRATION = Path(__file__).with_name("calibration_one_thread.json")
QUICK = ["--requests", "200"]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def llama(tmp_path: Path) -> str:
    return known.written(tmp_path, known.LLAMA_8B)


def test_the_settings_of_a_plan_are_ones_that_the_server_accepts(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("plan", llama, "--gpu", "t4", "--quantization", "fp8", "--enforce-eager", *QUICK)
    assert done.exit_code == 0, done.output
    lines = done.stdout.split("# Settings of each replica (.env)\n")[1]
    env = tmp_path / ".env"
    env.write_text("".join(f"{x}\n" for x in lines.splitlines() if "=" in x), encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    settings = Settings(data_dir=tmp_path)

    assert settings.engine == "vllm"
    assert settings.quantization == "fp8"
    assert settings.dtype == "float16"
    assert settings.enforce_eager
    assert settings.max_model_len == 768
    assert settings.max_num_seqs == 256
    assert settings.max_num_batched_tokens == 2048
    assert settings.gpu_memory_utilization == 0.92
    assert settings.tensor_parallel_size == 1


def test_a_plan_for_the_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "plan.json"
    where = ("--gpu", "cpu", "--calibration", CALIBRATION, "--memory-gib", "4")
    load = ("--rate", "2", "--input", "200", "--output", "100", "--ttft-ms", "500")
    done = run("plan", "bundled", *where, *load, "--out", out, *QUICK)
    assert done.exit_code == 0, done.output

    found = json.loads(out.read_text(encoding="utf-8"))

    assert found["replicas"] == 1
    assert found["simulation"]["ttft_ms"] < 500
    assert found["memory"]["kv_bytes_per_token"] == 4096  # float32, as the ONNX engine keeps it
    env = tmp_path / ".env"
    env.write_text("".join(f"{k}={v}\n" for k, v in found["settings"].items()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    settings = Settings(data_dir=tmp_path)
    assert (settings.engine, settings.onnx_precision, settings.onnx_threads) == ("onnx", "int8", 1)
    assert settings.onnx_kv_tokens == 16 * 300


def test_the_smallest_plan_is_accepted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = ("--gpu", "cpu", "--calibration", CALIBRATION, "--memory-gib", "1", "--json")
    load = ("--input", "3", "--output", "2", "--max-num-seqs", "1")
    found = json.loads(run("plan", "bundled", *where, *load, *QUICK).stdout)
    env = tmp_path / ".env"
    env.write_text("".join(f"{k}={v}\n" for k, v in found["settings"].items()), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert Settings(data_dir=tmp_path).max_num_seqs == 1


def test_json_goes_to_stdout_and_nothing_else(llama: str) -> None:
    done = run("plan", llama, "--gpu", "h100", "--json", *QUICK)
    found = json.loads(done.stdout)
    assert found["cost"]["as_of"] == "2026-09-26"
    assert found["cost"]["monthly_spot"] < found["cost"]["monthly_on_demand"]
    assert found["model"]["weights_known_from"] == "config.json"


def test_advice_for_a_gpu_and_for_the_cpu(llama: str) -> None:
    done = run("model", "advise", llama, "--gpu", "l4")
    assert done.exit_code == 0, done.output
    assert "Take FP8" in done.stdout
    assert "QUANTIZATION=fp8" in done.stdout
    where = ("--gpu", "cpu", "--calibration", CALIBRATION, "--memory-gib", "4")
    done = run("model", "advise", "bundled", *where)
    assert "Take int8" in done.stdout
    assert "ONNX_PRECISION=int8" in done.stdout


def test_one_stream_of_a_larger_model_is_advised_int4(tmp_path: Path) -> None:
    model = known.written(tmp_path, known.SMOLLM2_135M)
    where = ("--gpu", "cpu", "--calibration", CALIBRATION, "--memory-gib", "4", "--json")
    one = json.loads(run("model", "advise", model, *where, "--streams", "1").stdout)
    many = json.loads(run("model", "advise", model, *where).stdout)
    assert (one["recommended"], many["recommended"]) == ("int4", "int8")


def test_an_own_price_file_is_used(llama: str, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(
        "currency: EUR\nentries:\n- {machine: mine, gpu: l40s, gpus: 1, region: here, "
        "on_demand: 1.5, spot: null, as_of: 2020-01-01, source: an invoice}\n",
        encoding="utf-8",
    )
    done = run("plan", llama, "--gpu", "l40s", "--prices", prices, *QUICK)
    assert "1,095 EUR a month" in done.stdout
    assert "days old" in done.stdout
    assert "no price is known" in run("plan", llama, "--gpu", "l40s", *QUICK).stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpu", "gtx"), "no GPU is known as gtx: take one of t4, l4"),
        (("--gpu", "t4", "--tensor-parallel", "1"), "does not fit on NVIDIA T4"),
        (("--gpu", "l4", "--itl-ms", "5"), "memory bandwidth is the bound"),
        (("--gpu", "l4", "--ttft-ms", "0"), "positive number of milliseconds"),
        (("--gpu", "l4", "--input", "lots"), "no distribution of lengths"),
        (("--gpu", "l4", "--prices", "/nowhere.json"), "cannot be read"),
        (("--gpu", "cpu", "--calibration", "/nowhere.json"), "add --calibrate"),
        (("--gpu", "cpu", "--threads", "7"), "asks for 7: add --calibrate"),
        (("--gpu", "cpu", "--memory-gib", "1"), "does not fit in 1.00 GiB of RAM"),
        (("--gpu", "cpu", "--quantization", "fp8"), "is nothing for a CPU"),
        (("--gpu", "l4", "--kv-dtype", "int3"), "KV dtype int3 is not known"),
        (("--gpu", "cpu", "--tensor-parallel", "2"), "are for GPUs"),
        (("--gpu", "l4", "--max-num-batched-tokens", "64"), "to be at least MAX_NUM_SEQS (256)"),
        (("--gpu", "l4", "--out", "/proc/nowhere/plan.json"), "cannot be written"),
    ],
)
def test_faults_end_with_one_sentence(llama: str, arguments: tuple[str, ...], said: str) -> None:
    given = list(arguments)
    if "cpu" in given and "--calibration" not in given:
        given += ["--calibration", str(CALIBRATION)]
    done = run("plan", llama, *given, *QUICK)
    assert done.exit_code == 1
    assert said in done.stderr
    assert done.stderr.startswith("llm-gateway: ")
    assert "Traceback" not in done.stderr


def test_what_the_cpu_engine_does_not_cover_is_named(tmp_path: Path) -> None:
    model = known.written(tmp_path, known.DEEPSEEK_V3)
    done = run("plan", model, "--gpu", "cpu", "--calibration", CALIBRATION)
    assert "the ONNX engine does not cover DeepseekV3ForCausalLM" in done.stderr


@pytest.mark.parametrize("command", [("plan",), ("model", "advise")])
def test_help_shows_examples(command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert done.exit_code == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert "Examples" in plain
    assert "--gpu cpu --calibrate" in " ".join(plain.split())


def test_the_installed_command_loads_no_heavy_library(llama: str) -> None:
    code = (
        "import sys; from gateway.cli import app; app(sys.argv[1:], standalone_mode=False); "
        "heavy = {'torch', 'vllm', 'transformers', 'onnxruntime'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    arguments = ["plan", llama, "--gpu", "l4", *QUICK]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "MAX_MODEL_LEN=768" in done.stdout
