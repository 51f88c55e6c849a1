"""Quantisation x checkpoint x hardware, and memory: pure functions, no vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import vllm_tiny as tiny

from engine.base import EngineStartError
from engine.config import EngineConfig, VllmOptions
from engine.vllm import checkpoint, memory, preflight
from engine.vllm.checkpoint import Checkpoint
from engine.vllm.hardware import Hardware, cpu_flags, ram

GIB = 1024**3
AVX512_FLAGS = frozenset(["avx2", "avx512f", "avx512bw", "avx512vl", "avx512dq"])
AVX2 = Hardware("cpu", "this CPU", memory=16 * GIB, free=12 * GIB, flags=frozenset({"avx2"}))
AVX512 = Hardware("cpu", "this CPU", memory=16 * GIB, free=12 * GIB, flags=AVX512_FLAGS)
AMX = Hardware("cpu", "this CPU", memory=16 * GIB, free=12 * GIB, flags=AVX512_FLAGS | {"amx_tile"})
V100 = Hardware("cuda", "V100", (7, 0), 1, 16 * GIB, 15 * GIB)
T4 = Hardware("cuda", "T4", (7, 5), 1, 16 * GIB, 15 * GIB)
A100 = Hardware("cuda", "A100", (8, 0), 4, 80 * GIB, 79 * GIB)
L4 = Hardware("cuda", "L4", (8, 9), 1, 24 * GIB, 23 * GIB)
H100 = Hardware("cuda", "H100", (9, 0), 8, 80 * GIB, 79 * GIB)
MI300 = Hardware("rocm", "MI300X", None, 1, 192 * GIB, 190 * GIB)

PLAIN = Checkpoint("plain", "none", "none")
FP8 = Checkpoint("fp8-model", "fp8", "fp8")
FP8_BLOCK = Checkpoint("block-model", "fp8_block", "fp8")
INT8 = Checkpoint("int8-model", "int8", "compressed-tensors int8")
AWQ = Checkpoint("awq-model", "w4a16", "AWQ")
W4A16 = Checkpoint("w4-model", "w4a16", "compressed-tensors w4a16")
GPTQ = Checkpoint("gptq-model", "other", "gptq")


@pytest.mark.parametrize(
    ("wanted", "model", "hardware", "quantization"),
    [
        ("auto", PLAIN, AVX2, None),
        ("none", PLAIN, H100, None),
        ("fp8", PLAIN, H100, "fp8_per_tensor"),
        ("fp8", PLAIN, L4, "fp8_per_tensor"),
        ("fp8", PLAIN, A100, "fp8_per_tensor"),
        ("fp8", PLAIN, T4, "fp8_per_tensor"),
        ("fp8", PLAIN, MI300, "fp8_per_tensor"),
        ("fp8", FP8, H100, None),
        ("fp8", FP8, T4, None),
        ("fp8", FP8, AVX2, None),
        ("auto", FP8, AVX2, None),
        ("fp8", FP8_BLOCK, AMX, None),
        ("awq", AWQ, T4, None),
        ("awq", W4A16, H100, None),
        ("awq", W4A16, AVX512, None),
        ("awq_marlin", AWQ, A100, None),
        ("auto", AWQ, AVX512, None),
        ("auto", INT8, AVX2, None),
        ("auto", INT8, T4, None),
        ("auto", GPTQ, A100, None),
        ("gptq", GPTQ, A100, "gptq"),
    ],
)
def test_what_works(
    wanted: str, model: Checkpoint, hardware: Hardware, quantization: str | None
) -> None:
    assert preflight.plan(wanted, model, hardware).quantization == quantization


@pytest.mark.parametrize(
    ("wanted", "model", "hardware", "words"),
    [
        ("fp8", PLAIN, V100, ["compute capability 7.5", "V100 has 7.0", "QUANTIZATION=none"]),
        ("fp8", PLAIN, AVX2, ["needs a GPU", "AVX2", "INT8", "QUANTIZATION=none"]),
        ("fp8", PLAIN, AVX512, ["needs a GPU", "AVX-512"]),
        ("fp8", FP8, V100, ["7.5", "V100"]),
        ("fp8", FP8_BLOCK, AVX512, ["AMX", "INT8"]),
        ("fp8", AWQ, H100, ["quantised already", "QUANTIZATION=auto"]),
        ("fp8", INT8, H100, ["quantised already"]),
        ("awq", PLAIN, H100, ["not quantised", "QUANTIZATION=auto"]),
        ("awq", FP8, H100, ["quantised with fp8"]),
        ("awq", AWQ, AVX2, ["AVX-512", "this CPU has AVX2", "INT8"]),
        ("auto", W4A16, AVX2, ["AVX-512", "w4-model"]),
        ("awq", AWQ, V100, ["7.5", "7.0"]),
        ("auto", INT8, V100, ["7.5", "7.0"]),
        ("none", AWQ, H100, ["quantised (AWQ)", "QUANTIZATION=auto"]),
        ("nonsense", PLAIN, H100, ["nonsense", "gptq"]),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason_and_what_will(
    wanted: str, model: Checkpoint, hardware: Hardware, words: list[str]
) -> None:
    with pytest.raises(EngineStartError) as caught:
        preflight.plan(wanted, model, hardware, methods=["gptq", "fp8"])
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_emulation_is_noted() -> None:
    assert "8.9" in preflight.plan("fp8", PLAIN, A100).note
    assert preflight.plan("fp8", PLAIN, H100).note == ""
    assert "emulated" in preflight.plan("auto", FP8, AVX2).note


def test_the_older_spelling_of_online_fp8() -> None:
    assert preflight.plan("fp8", PLAIN, H100, online_fp8="fp8").quantization == "fp8"


def _compressed(weights: dict[str, Any], activations: dict[str, Any] | None) -> dict[str, Any]:
    group = {"weights": weights, "input_activations": activations}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}


@pytest.mark.parametrize(
    ("quantization", "family"),
    [
        (None, "none"),
        ({"quant_method": "awq", "bits": 4}, "w4a16"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8_block"),
        ({"quant_method": "gptq", "bits": 4}, "other"),
        (_compressed({"type": "int", "num_bits": 8}, {"num_bits": 8}), "int8"),
        (_compressed({"type": "int", "num_bits": 4}, None), "w4a16"),
        (_compressed({"type": "float", "num_bits": 8}, {"num_bits": 8}), "fp8"),
        (
            _compressed({"type": "float", "num_bits": 8, "strategy": "block"}, {"num_bits": 8}),
            "fp8_block",
        ),
        (_compressed({"type": "float", "num_bits": 4}, None), "other"),
    ],
)
def test_the_family_of_a_checkpoint(quantization: dict[str, Any] | None, family: str) -> None:
    assert checkpoint.family_of(quantization)[0] == family


def test_reading_a_folder(tmp_path: Path) -> None:
    found = checkpoint.read(str(tiny.write_model(tmp_path / "m")))
    assert (found.family, found.method, found.dtype) == ("none", "none", "float32")
    assert found.max_model_len == tiny.MAX_LEN
    assert found.weight_bytes == (tmp_path / "m" / "model.safetensors").stat().st_size
    per_token = 2 * tiny.LAYERS * tiny.KV_HEADS * tiny.HEAD_DIM
    assert found.kv_bytes_per_token("float32", "auto") == per_token * 4
    assert found.kv_bytes_per_token("bfloat16", "auto") == per_token * 2
    assert found.kv_bytes_per_token("bfloat16", "fp8") == per_token


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match=r"no config\.json"):
        checkpoint.read(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(EngineStartError, match="not JSON"):
        checkpoint.read(str(tmp_path))


# Llama-3.1-8B, whose numbers are well known: 128 KiB of KV cache per token in 16 bits.
LLAMA_8B = Checkpoint(
    "llama",
    "none",
    "none",
    16 * GIB,
    {
        "dtype": "bfloat16",
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_size": 4096,
        "max_position_embeddings": 131072,
    },
)


def _check(hardware: Hardware, max_model_len: int | None = None, **options: Any) -> None:
    config = EngineConfig(max_model_len=max_model_len, vllm=VllmOptions(**options))
    memory.check(config, memory.need(config, LLAMA_8B), hardware)


def test_kv_per_token_of_a_known_model() -> None:
    assert LLAMA_8B.kv_bytes_per_token("auto", "auto") == 128 * 1024


def test_a_sequence_that_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(EngineStartError) as caught:
        _check(L4)
    message = str(caught.value)
    # 24 GiB x 0.92 - 16 GiB leave 6.08 GiB: 49,807 tokens, rounded down to 16 of 128 KiB.
    assert "MAX_MODEL_LEN=131072 tokens needs 16.00 GiB" in message
    assert "131072 bytes per token" in message
    assert "leaves 6.08 GiB" in message
    assert "MAX_MODEL_LEN=49792 or less" in message
    assert "KV_CACHE_DTYPE=fp8" in message
    _check(L4, max_model_len=49792)
    _check(H100)


def test_weights_that_do_not_fit_are_refused_with_what_would() -> None:
    small = Hardware("cuda", "A2", (8, 6), 4, 16 * GIB, 15 * GIB)
    with pytest.raises(EngineStartError) as caught:
        _check(small, max_model_len=4096)
    message = str(caught.value)
    assert "weights take 16.00 GiB" in message
    assert "TENSOR_PARALLEL_SIZE=2 or more" in message
    assert "QUANTIZATION=fp8" in message
    _check(small, max_model_len=4096, tensor_parallel_size=2)
    _check(small, max_model_len=4096, quantization="fp8")


def test_on_cpus_the_setting_for_kv_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    big = Hardware("cpu", "this CPU", memory=64 * GIB, free=60 * GIB, flags=AVX512_FLAGS)
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
    with pytest.raises(EngineStartError) as caught:
        _check(big)
    assert "VLLM_CPU_KVCACHE_SPACE=1 leaves 1.00 GiB" in str(caught.value)
    assert "MAX_MODEL_LEN=8192 or less" in str(caught.value)
    assert "VLLM_CPU_KVCACHE_SPACE=16 or more" in str(caught.value)
    # vLLM itself lets the variable win over its own argument.
    with pytest.raises(EngineStartError, match="VLLM_CPU_KVCACHE_SPACE=1 leaves"):
        _check(big, engine_args={"kv_cache_memory_bytes": 32 * GIB})
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE")
    _check(big)
    with pytest.raises(EngineStartError, match="kv_cache_memory_bytes in ENGINE_ARGS leaves"):
        _check(big, engine_args={"kv_cache_memory_bytes": GIB})


def test_kv_memory_on_cpus_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    big = Hardware("cpu", "this CPU", memory=64 * GIB, free=60 * GIB)
    config = EngineConfig(max_model_len=1024, max_num_seqs=4)
    needed = memory.need(config, LLAMA_8B)
    assert memory.cpu_kv_bytes(config, needed, big) == 4 * (1024 + 128) * 128 * 1024
    many = EngineConfig(max_model_len=8192, max_num_seqs=256)
    assert memory.cpu_kv_bytes(many, memory.need(many, LLAMA_8B), big) == int(44 * GIB * 0.4)
    said = EngineConfig(vllm=VllmOptions(gpu_memory_utilization=0.5))
    assert memory.cpu_kv_bytes(said, memory.need(said, LLAMA_8B), big) is None


def test_a_memory_failure_is_explained_with_numbers() -> None:
    config = EngineConfig()
    reason = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    text = memory.explain(reason, config, memory.need(config, LLAMA_8B), L4, LLAMA_8B)
    for part in ("weights 16.00 GiB", "131072 bytes per token", "23.00 GiB of 24.00 GiB free"):
        assert part in text
    assert "MAX_MODEL_LEN=49792 or less" in text
    assert reason in text
    precise = memory.explain(
        "ValueError: To serve at least one request with the model's max seq len (131072), 16 GiB "
        "KV cache is needed. The estimated maximum model length is 30000.",
        config,
        memory.need(config, LLAMA_8B),
        L4,
        LLAMA_8B,
    )
    assert "MAX_MODEL_LEN=30000 or less" in precise
    other = memory.explain("KeyError: x", config, memory.need(config, LLAMA_8B), L4, LLAMA_8B)
    assert other == "vLLM could not start llama: KeyError: x"


def test_cpu_flags_are_read(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor : 0\nflags\t\t: fpu avx2 avx512f\n\n")
    assert cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2", "avx512f"}
    assert cpu_flags(tmp_path / "absent") == frozenset()
    assert AVX2.instruction_set == "AVX2"
    assert AVX512.instruction_set == "AVX-512"
    assert AMX.instruction_set == "AMX"


def test_ram_is_that_of_the_container(tmp_path: Path) -> None:
    total, free = ram(tmp_path)
    assert 0 < free <= total
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("0\n")
    assert ram(tmp_path)[0] == total
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("400\n")
    assert ram(tmp_path) == (1000, 600)


def test_adapters_are_read(tmp_path: Path) -> None:
    from engine.vllm.arguments import lora_arguments

    folder = tiny.write_adapter(tmp_path / "a", tiny.write_model(tmp_path / "m"), rank=12)
    assert lora_arguments({"a": str(folder)}, False) == {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": 16,
    }
    assert lora_arguments({"a": str(folder)}, True)["max_loras"] == 2
    assert lora_arguments({}, True) == {}
    with pytest.raises(EngineStartError, match=r"no adapter_config\.json"):
        lora_arguments({"a": str(tmp_path)}, False)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": 1000}))
    with pytest.raises(EngineStartError, match="rank 1000"):
        lora_arguments({"a": str(tmp_path)}, False)
