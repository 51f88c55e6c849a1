"""Tiny checkpoints: random models of several families, and empty shells of one."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VOCAB = 384
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# Per family: prefix of the transformers classes, and what differs from SIZES.
FAMILY_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama_tied": ("Llama", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "mistral_window": ("Mistral", {"sliding_window": 24}),
    "gemma": ("Gemma", {"head_dim": 16}),
    "gemma2": ("Gemma2", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 24}),
    "gemma3": (
        "Gemma3",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 24,
            "num_hidden_layers": 6,
        },
    ),
    "phi": ("Phi", {"hidden_size": 128, "partial_rotary_factor": 0.5}),
    "phi3": ("Phi3", {"original_max_position_embeddings": 256, "sliding_window": 24}),
    "granite": (
        "Granite",
        {
            "embedding_multiplier": 6.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.3,
            "logits_scaling": 4.0,
        },
    ),
    "gpt2_untied": (  # the usual form has a test file of its own
        "GPT2",
        {
            "tie_word_embeddings": False,
            "n_inner": 96,
            "activation_function": "gelu",
            "scale_attn_by_inverse_layer_idx": True,
        },
    ),
}


@dataclass(frozen=True)
class Converted:
    """A checkpoint and how to get one of its variants."""

    checkpoint: Path
    variant: Callable[[str], Path]


def make_checkpoint(folder: Path, family: str, dtype: str = "float32") -> Path:
    """Save a random model of ``family`` with a byte-level tokenizer."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    prefix, changes = FAMILY_CONFIGS[family]
    config_name = "Gemma3TextConfig" if prefix == "Gemma3" else f"{prefix}Config"
    config = getattr(transformers, config_name)(**(SIZES | changes))
    torch.manual_seed(0)
    head = "LMHeadModel" if prefix == "GPT2" else "ForCausalLM"
    model = getattr(transformers, prefix + head)(config)
    if prefix == "GPT2":
        draw_vectors(model)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    special = ["<pad>", "<s>", "</s>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(special + letters)}, []))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    fast.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    fast.save_pretrained(folder)
    return folder


def draw_vectors(model: Any) -> None:
    """Draw the biases and the weights of norms, which start at 0 and 1 and would hide a mistake."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter += torch.randn_like(parameter) * 0.2


def write_config(folder: Path, **config: Any) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def write_weights(path: Path, *, dtype: str = "F16", cut: int = 0, size: int = 64) -> None:
    header = json.dumps(
        {
            "__metadata__": {"format": "pt"},
            "w": {"dtype": dtype, "shape": [size // 4, 2], "data_offsets": [0, size]},
        }
    ).encode()
    data = struct.pack("<Q", len(header)) + header + bytes(size)
    path.write_bytes(data[: len(data) - cut])
