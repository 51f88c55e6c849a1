"""Weights by role: from configs as transformers builds them, and from safetensors headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import capacity_models as known
import pytest

from engine.capacity import CapacityError
from engine.capacity.families import FAMILIES, from_config
from engine.capacity.model import open_model

SMALL = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
EXTRA: dict[str, dict[str, Any]] = {
    "qwen3": {"head_dim": 32},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 16},
    "gemma3_text": {"head_dim": 16},
    "mixtral": {"num_local_experts": 4},
    "phi3": {"pad_token_id": 0},
    "qwen3_moe": {
        "num_experts": 4,
        "moe_intermediate_size": 48,
        "head_dim": 16,
        "mlp_only_layers": [1],
    },
    "deepseek_v2": {
        "n_routed_experts": 4,
        "n_shared_experts": 2,
        "moe_intermediate_size": 48,
        "first_k_dense_replace": 1,
        "q_lora_rank": None,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
        "topk_method": "greedy",
        "n_group": 1,
        "topk_group": 1,
    },
    "deepseek_v3": {
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "moe_intermediate_size": 48,
        "first_k_dense_replace": 1,
        "q_lora_rank": 24,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
        "n_group": 1,
        "topk_group": 1,
    },
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    pytest.importorskip("torch")
    return pytest.importorskip("transformers")


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("tied", [False, True])
def test_a_config_implies_the_parameters_that_transformers_makes(
    transformers: Any, family: str, tied: bool
) -> None:
    import torch

    if family == "gpt2":
        given = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 64, "vocab_size": 128}
    else:
        given = SMALL | EXTRA.get(family, {})
    config = transformers.AutoConfig.for_model(family, **given, tie_word_embeddings=tied)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    stored = {id(p): p.numel() for p in model.parameters()}
    # Kept beside the parameters in the files: DeepSeek-V3's expert bias.
    stored |= {id(b): b.numel() for n, b in model.named_buffers() if "correction_bias" in n}

    weights = from_config(config.to_dict() | {"tie_word_embeddings": tied})

    assert sum(t.elements for t in weights) == sum(stored.values())


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (known.LLAMA_8B, 8_030_261_248),
        (known.PHI_2, 2_779_683_840),
        (known.MISTRAL_7B, 7_241_732_096),
        (known.SMOLLM2_135M, 134_515_008),
        (known.DEEPSEEK_V3, 671_026_419_200),
    ],
)
def test_published_sizes(tmp_path: Path, config: dict[str, Any], parameters: int) -> None:
    assert open_model(known.written(tmp_path, config)).weights.parameters == parameters


def test_headers_and_config_agree_on_the_bundled_model(tmp_path: Path) -> None:
    model = open_model("bundled")
    folder = model.folder
    assert folder is not None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    alone = open_model(known.written(tmp_path, config))

    assert model.weights.source == "headers"
    assert alone.weights.source == "config"
    assert model.weights.parameters == alone.weights.parameters
    assert model.weights.multiplied == alone.weights.multiplied
    assert model.weights.stored_bytes == 6_033_920
    for method in ("none", "fp8", "int8", "awq"):
        assert model.weights.served_bytes(method) == alone.weights.served_bytes(method)


def test_quantisation_leaves_head_and_embeddings_alone(tmp_path: Path) -> None:
    weights = open_model(known.written(tmp_path, known.LLAMA_8B)).weights
    kept = 2 * 2 * 128256 * 4096 + 2 * 65 * 4096
    projections = weights.parameters - kept // 2
    matrices = 7 * 32

    assert weights.served_bytes("none") == 2 * weights.parameters
    assert weights.served_bytes("fp8") == kept + projections + 4 * matrices
    assert weights.served_bytes("awq") == kept + projections * (0.5 + 2.5 / 128)


def test_tensor_parallel_repeats_what_it_cannot_split(tmp_path: Path) -> None:
    weights = open_model(known.written(tmp_path, known.LLAMA_8B)).weights
    norms = 65 * 4096 * 2
    keys_and_values = 32 * 2 * 1024 * 4096 * 2
    whole = weights.served_bytes("none")

    assert weights.served_bytes("none", 8) == (whole - norms) // 8 + norms
    sixteen = (whole - norms - keys_and_values) // 16 + keys_and_values // 8 + norms
    assert weights.served_bytes("none", 16) == sixteen


def test_a_mixture_reads_the_experts_that_some_token_chose(tmp_path: Path) -> None:
    weights = open_model(known.written(tmp_path, known.DEEPSEEK_V3)).weights
    assert (weights.experts, weights.experts_per_token) == (256, 8)
    assert weights.experts_hit(1) == pytest.approx(8 / 256)
    assert weights.experts_hit(1000) == pytest.approx(1)
    # 37 billion parameters are active per token, says its report; the token table is not read.
    assert weights.multiplied == pytest.approx(36.6e9, rel=0.01)


def test_a_quantised_checkpoint_counts_as_it_is_stored(tmp_path: Path) -> None:
    config = known.SMOLLM2_135M | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    known.written(tmp_path, config)
    header = {
        "model.layers.0.self_attn.q_proj.qweight": {
            "dtype": "I32",
            "shape": [576, 72],
            "data_offsets": [0, 165888],
        }
    }
    _safetensors(tmp_path / "model.safetensors", header, 165888)

    model = open_model(str(tmp_path))

    assert model.weights.served_bytes(model.method("auto")) == 165888
    assert model.weights.multiplied == 134_479_872


def test_a_quantised_config_alone_is_estimated_by_its_method(tmp_path: Path) -> None:
    config = known.LLAMA_8B | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    model = open_model(known.written(tmp_path, config))
    assert model.method("auto") == "awq"
    assert model.weights.served_bytes(model.method("auto")) < 6e9


@pytest.mark.parametrize("cut", [4, 200])
def test_damaged_files_are_named(tmp_path: Path, cut: int) -> None:
    known.written(tmp_path, known.SMOLLM2_135M)
    path = tmp_path / "model.safetensors"
    entry = {"dtype": "BF16", "shape": [128], "data_offsets": [0, 256]}
    _safetensors(path, {"model.norm.weight": entry}, 256)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CapacityError, match=r"model\.safetensors is damaged or cut short"):
        open_model(str(tmp_path))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    known.written(tmp_path, known.SMOLLM2_135M)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(CapacityError, match="lacks model-00001-of-00002"):
        open_model(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "bert", "hidden_size": 8}, "num_hidden_layers"),
        (known.LLAMA_8B | {"model_type": "falcon"}, "falcon model cannot be told"),
        (known.LLAMA_8B | {"is_encoder_decoder": True}, "only decoders"),
        (known.LLAMA_8B | {"layer_types": ["warp"] * 32}, "type warp are not covered"),
    ],
)
def test_a_wrong_family_is_named(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    with pytest.raises(CapacityError, match=said):
        open_model(known.written(tmp_path, config))


def test_missing_and_broken_sources_are_named(tmp_path: Path) -> None:
    with pytest.raises(CapacityError, match="neither a folder"):
        open_model(str(tmp_path / "nothing"))
    with pytest.raises(CapacityError, match=r"has no config\.json"):
        open_model(str(tmp_path))
    broken = tmp_path / "config.json"
    broken.write_text("{", encoding="utf-8")
    with pytest.raises(CapacityError, match="cannot be read as JSON"):
        open_model(str(broken))


def _safetensors(path: Path, header: dict[str, Any], size: int) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * size)
