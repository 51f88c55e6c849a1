"""Settings and versions: what is refused before vLLM is asked."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from engine.base import EngineStartError
from engine.config import EngineConfig, VllmOptions
from engine.vllm import compat, metrics
from engine.vllm.arguments import arguments, checked, known_fields
from engine.vllm.preflight import Plan
from gateway.settings import Settings, SettingsError, load_settings


def test_the_package_imports_neither_vllm_nor_torch() -> None:
    code = (
        "import sys, engine.vllm, engine.vllm.compat, engine.vllm.preflight, engine.vllm.engine;"
        "sys.exit(bool({'vllm', 'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("version", ["0.24.0", "0.28.0+cpu", "0.32.0", "0.34.9"])
def test_supported_versions(version: str) -> None:
    assert compat.check_version(version) == version


@pytest.mark.parametrize("version", ["0.23.9", "0.35.0", "1.0.0", "0.9.1", "unknown"])
def test_other_versions_are_refused_with_the_range(version: str) -> None:
    with pytest.raises(EngineStartError) as caught:
        compat.check_version(version)
    assert version in str(caught.value)
    assert "0.24" in str(caught.value)
    assert "0.35" in str(caught.value)


def test_the_installed_version_is_supported() -> None:
    if compat.installed_version() is None:
        with pytest.raises(EngineStartError, match="not installed"):
            compat.check_version()
    else:
        assert compat.check_version() == compat.installed_version()


def test_settings_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "QUANTIZATION": "fp8",
        "GPU_MEMORY_UTILIZATION": "0.8",
        "MAX_NUM_SEQS": "64",
        "SPECULATIVE_CONFIG": '{"method": "ngram", "num_speculative_tokens": 3}',
        "LORA_MODULES": "a=/adapters/a, b=org/b",
        "ENGINE_ARGS": '{"seed": 5}',
        "REVISION": "main",
        "ENFORCE_EAGER": "true",
        "TENSOR_PARALLEL_SIZE": "2",
        "MAX_NUM_BATCHED_TOKENS": "",
    }.items():
        monkeypatch.setenv(name, value)
    config = Settings(_env_file=None).engine_config()
    assert config.revision == "main"
    assert config.vllm == VllmOptions(
        quantization="fp8",
        gpu_memory_utilization=0.8,
        max_num_seqs=64,
        speculative_config={"method": "ngram", "num_speculative_tokens": 3},
        lora_modules={"a": "/adapters/a", "b": "org/b"},
        engine_args={"seed": 5},
        enforce_eager=True,
        tensor_parallel_size=2,
    )


def test_vllm_decodes_more_sequences_together_by_default() -> None:
    config = Settings(_env_file=None).engine_config()
    assert (config.max_num_seqs, config.vllm.max_num_seqs) == (16, 256)
    assert config.vllm.trust_remote_code is False


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("engine_args", "{", "not JSON"),
        ("engine_args", "[]", "JSON object"),
        ("speculative_config", "3", "JSON object"),
        ("lora_modules", "a", "name=folder"),
        ("gpu_memory_utilization", "1.5", "less than or equal to 1"),
        ("dtype", "float8", "DTYPE"),
        ("tensor_parallel_size", "0", "TENSOR_PARALLEL_SIZE"),
    ],
)
def test_settings_that_cannot_be_are_named(name: str, value: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words) as caught:
        load_settings(_env_file=None, **{name: value})
    assert name.upper() in str(caught.value)


@pytest.fixture(scope="module")
def fields() -> dict[str, Any]:
    if compat.installed_version() is None:
        pytest.skip("vLLM is not installed")
    return known_fields()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("max_logprob", 5, "did you mean max_logprobs"),
        ("no_such_thing", 1, "no engine argument 'no_such_thing'"),
        ("_api_process_count", 1, "no engine argument"),
        ("seed", "five", 'seed does not take "five"'),
        ("seed", "5", "seed does not take"),
        ("cpu_offload_gb", [], "cpu_offload_gb does not take"),
        ("enable_chunked_prefill", 3, "enable_chunked_prefill does not take 3"),
        ("scheduling_policy", "random", "fcfs"),
        ("max_model_len", 5, "MAX_MODEL_LEN"),
        ("model", "x", "MODEL_NAME"),
        ("quantization", "fp8", "QUANTIZATION"),
        ("disable_log_stats", True, "metrics"),
    ],
)
def test_engine_args_are_checked_by_name_and_type(
    fields: dict[str, Any], name: str, value: Any, words: str
) -> None:
    with pytest.raises(EngineStartError, match=words) as caught:
        checked(name, value, fields)
    assert str(caught.value).startswith("ENGINE_ARGS: ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 3),
        ("cpu_offload_gb", 4),
        ("block_size", None),
        ("limit_mm_per_prompt", {"image": 2}),
        ("compilation_config", {"mode": 0}),
        ("hf_overrides", {"rope_theta": 1e6}),
        ("distributed_executor_backend", "ray"),
        ("kv_cache_memory_bytes", 1024),
        ("cpu_offload_params", ["q_proj"]),
    ],
)
def test_engine_args_that_vllm_takes(fields: dict[str, Any], name: str, value: Any) -> None:
    assert checked(name, value, fields) == value


def test_every_argument_exists_in_the_installed_vllm(fields: dict[str, Any]) -> None:
    config = EngineConfig(
        max_model_len=100,
        vllm=VllmOptions(
            gpu_memory_utilization=0.5,
            max_num_batched_tokens=512,
            speculative_config={"method": "ngram"},
            engine_args={"seed": 1},
        ),
    )
    values = arguments(config, ("m", "main"), Plan("fp8", "fp8"), fields, kv_bytes=1)
    assert set(values) <= set(fields)
    assert values["seed"] == 1
    assert values["quantization"] == "fp8"


def test_waiting_requests_are_counted_as_each_version_reports_them() -> None:
    assert compat.waiting(SimpleNamespace(num_waiting_reqs=3)) == 3
    stats = SimpleNamespace(num_waiting_reqs=3, num_skipped_waiting_reqs=2)
    assert compat.waiting(stats) == 5


def test_an_idle_engine_reports_nothing_running() -> None:
    counters = metrics.Counters()
    counters.expect([0, 1])
    for rank in (0, 1):
        counters.record(
            SimpleNamespace(
                num_running_reqs=3,
                num_waiting_reqs=1,
                kv_cache_usage=0.5,
                prefix_cache_stats=SimpleNamespace(queries=10, hits=4),
                spec_decoding_stats=None,
            ),
            None,
            rank,
        )
    shape = metrics.Shape(block_size=16, blocks=100, max_num_seqs=8)
    busy = metrics.load(counters, shape, 9)
    assert (busy.running, busy.waiting, busy.kv_used, busy.kv_total) == (6, 3, 1600, 3200)
    assert (busy.max_running, busy.prefix_queries, busy.prefix_hits) == (16, 20, 8)
    aborted = metrics.load(counters, shape, 2)
    assert (aborted.running, aborted.waiting) == (2, 0)
    idle = metrics.load(counters, shape, 0)
    assert (idle.running, idle.waiting, idle.kv_used) == (0, 0, 0)
