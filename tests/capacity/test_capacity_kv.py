"""KV memory: known models, tensor parallel, and the installed vLLM's own figures."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import capacity_models as known
import pytest

from engine.capacity import CapacityError
from engine.capacity.architecture import read_architecture
from engine.capacity.kv import layout


@pytest.mark.parametrize(
    ("config", "kv_dtype", "per_token"),
    [
        (known.LLAMA_8B, "auto", 131_072),
        (known.LLAMA_8B, "fp8", 65_536),
        (known.LLAMA_70B, "auto", 327_680),
        (known.QWEN25_7B, "auto", 57_344),
        (known.MISTRAL_7B, "auto", 131_072),
        (known.PHI_2, "auto", 327_680),
        (known.PHI_2, "float32", 655_360),
        (known.QWEN3_06B, "auto", 114_688),
        (known.DISTILGPT2, "auto", 18_432),
        (known.DEEPSEEK_V3, "auto", 70_272),
        (known.LLAMA_8B | {"num_key_value_heads": 1}, "auto", 16_384),
    ],
)
def test_bytes_per_token(config: dict[str, Any], kv_dtype: str, per_token: int) -> None:
    assert layout(read_architecture(config), kv_dtype).bytes_per_token == per_token


@pytest.mark.parametrize(
    ("config", "gpus", "per_token"),
    [
        (known.LLAMA_8B, 2, 65_536),
        (known.LLAMA_8B, 8, 16_384),
        (known.LLAMA_8B, 16, 16_384),  # 8 KV heads on 16 GPUs: each is kept twice
        (known.QWEN25_7B, 14, None),
        (known.DEEPSEEK_V3, 8, 70_272),  # a latent is kept whole everywhere
    ],
)
def test_tensor_parallel(config: dict[str, Any], gpus: int, per_token: int | None) -> None:
    architecture = read_architecture(config)
    if per_token is None:
        with pytest.raises(CapacityError, match="4 KV heads cannot be split"):
            layout(architecture, tensor_parallel=gpus)
        return
    assert layout(architecture, tensor_parallel=gpus).bytes_per_token == per_token


def test_heads_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(CapacityError, match="28 attention heads cannot be split over 8 GPUs"):
        layout(read_architecture(known.QWEN25_7B), tensor_parallel=8)
    with pytest.raises(CapacityError, match="KV dtype int3 is not known"):
        layout(read_architecture(known.LLAMA_8B), "int3")


def test_a_sliding_window_bounds_a_sequence() -> None:
    kv = layout(read_architecture(known.MISTRAL_7B))
    assert kv.window == 4096
    assert kv.sequence_bytes(1000) == 1000 * 131_072
    assert kv.sequence_bytes(100_000) == 4096 * 131_072
    assert kv.blocks(100_000) == 4096 // 16 + 1


def test_sliding_and_full_layers_share_one_pool() -> None:
    architecture = read_architecture(known.GEMMA3_4B)
    kinds = [layer.kind for layer in architecture.layers]
    assert [i for i, kind in enumerate(kinds) if kind == "full"] == [5, 11, 17, 23, 29]
    kv = layout(architecture)
    assert (kv.group_layers, kv.full_groups, kv.window_groups) == (5, 1, 6)
    assert kv.full_bytes_per_token == 5 * 2 * 4 * 256 * 2
    assert kv.sequence_bytes(8192) == 5 * 4096 * 8192 + 29 * 4096 * 1024


def test_recurrent_layers_do_not_grow() -> None:
    kv = layout(read_architecture(known.QWEN3_NEXT))
    convolution = 3 * (2 * 16 * 128 + 32 * 128) * 2
    assert kv.state_bytes == 36 * (convolution + 32 * 128 * 128 * 2)
    assert kv.bytes_per_token == 12 * 2 * 2 * 256 * 2
    assert kv.sequence_bytes(1000) == kv.state_bytes + 1000 * kv.bytes_per_token


@pytest.mark.parametrize(
    ("model_type", "given"),
    [
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 3, "sliding_window": 8}),
        ("qwen3", {"use_sliding_window": False, "sliding_window": 8}),
        ("gemma2", {"sliding_window": 8}),
        ("gemma3_text", {"sliding_window": 8}),
        ("cohere2", {"sliding_window": 8}),
        ("gpt_oss", {"sliding_window": 8}),
    ],
)
def test_rules_for_sliding_layers_are_those_of_transformers(
    model_type: str, given: dict[str, Any]
) -> None:
    """Older config files have no layer_types; the rule must give what transformers derives."""
    transformers = pytest.importorskip("transformers")
    shape = {"num_hidden_layers": 8, "num_attention_heads": 4, "hidden_size": 64}
    config = transformers.AutoConfig.for_model(model_type, **shape, vocab_size=64, **given)
    if not getattr(config, "use_sliding_window", True):
        given = given | {"use_sliding_window": False}
    wanted = ["full" if t == "full_attention" else "sliding" for t in config.layer_types]

    older = shape | given | {"model_type": model_type, "vocab_size": 64}

    assert [layer.kind for layer in read_architecture(older).layers] == wanted


COMPARED = {
    "llama": known.LLAMA_8B,
    "phi": known.PHI_2,
    "mistral": known.MISTRAL_7B,
    "gemma3": known.GEMMA3_4B,
    "deepseek": known.DEEPSEEK_V3,
}


def test_blocks_are_those_of_the_installed_vllm() -> None:
    """Page sizes and groups of layers from vLLM's own classes."""
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    shapes = {name: read_architecture(config) for name, config in COMPARED.items()}
    asked = {
        name: [[x.kind, x.kv_heads, x.key_dim, x.window] for x in shape.layers]
        for name, shape in shapes.items()
    }
    answered = subprocess.run(
        [sys.executable, Path(__file__).with_name("vllm_blocks.py")],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert answered.returncode == 0, answered.stderr
    line = next(x for x in answered.stdout.splitlines() if x.startswith("ANSWER "))
    for name, wanted in json.loads(line.removeprefix("ANSWER ")).items():
        kv = layout(shapes[name])
        assert kv.full_groups + kv.window_groups == wanted["groups"], name
        assert kv.full_groups == wanted["full"], name
        assert kv.group_layers == wanted["layers"], name
        assert kv.block_bytes == wanted["page"] * kv.group_layers, name


def test_a_config_without_a_head_count_says_so() -> None:
    with pytest.raises(CapacityError, match="no usable num_attention_heads"):
        read_architecture({"model_type": "llama", "num_hidden_layers": 2})


def test_a_sparse_indexer_keeps_its_own_key_per_token() -> None:
    """DeepSeek-V3.2: an fp8 key of 128 and a 4-byte scale, whatever the KV dtype."""
    sparse = known.DEEPSEEK_V3 | {"index_topk": 2048, "index_head_dim": 128}
    for kv_dtype, latent in (("auto", 2), ("fp8", 1)):
        found = layout(read_architecture(sparse), kv_dtype).bytes_per_token
        assert found == 61 * (576 * latent + 132)
