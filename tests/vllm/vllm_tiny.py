"""A small random Llama in Hugging Face layout, with a tokenizer and a chat template."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

# Sizes are multiples of 128, the group size of 4-bit quantisation.
VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, WIDE = 384, 128, 2, 4, 4, 32, 256
MAX_LEN = 2048
EOS, IM_END, IM_START = 256, 257, 258
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_model(folder: Path, seed: int = 0) -> Path:
    """Write a complete model folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)

    def draw(*size: int) -> np.ndarray:
        return (rng.standard_normal(size) * 0.15).astype(np.float32)

    attention, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    weights = {
        "model.embed_tokens.weight": draw(VOCAB, HIDDEN),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
        "lm_head.weight": draw(VOCAB, HIDDEN),
    }
    for layer in range(LAYERS):
        p = f"model.layers.{layer}."
        weights |= {
            p + "input_layernorm.weight": np.ones(HIDDEN, np.float32),
            p + "post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
            p + "self_attn.q_proj.weight": draw(attention, HIDDEN),
            p + "self_attn.k_proj.weight": draw(kv, HIDDEN),
            p + "self_attn.v_proj.weight": draw(kv, HIDDEN),
            p + "self_attn.o_proj.weight": draw(HIDDEN, attention),
            p + "mlp.gate_proj.weight": draw(WIDE, HIDDEN),
            p + "mlp.up_proj.weight": draw(WIDE, HIDDEN),
            p + "mlp.down_proj.weight": draw(HIDDEN, WIDE),
        }
    save_file(weights, str(folder / "model.safetensors"), {"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": WIDE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": MAX_LEN,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": IM_END,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [IM_END, EOS]}))
    byte_tokenizer().save(str(folder / "tokenizer.json"))
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder


def byte_tokenizer() -> Tokenizer:
    """Ids 0-255 are bytes in GPT-2's order, 256-258 special, the rest two letters each."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), key=_byte_order)
    ids = {symbol: index for index, symbol in enumerate(alphabet)}
    special = ["<|endoftext|>", "<|im_end|>", "<|im_start|>"]
    ids |= {name: EOS + index for index, name in enumerate(special)}
    letters = "abcdefghijklmnopqrstuvwxyz"
    pairs = [a + b for a in letters for b in letters][: VOCAB - len(ids)]
    ids |= {pair: EOS + 3 + index for index, pair in enumerate(pairs)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[(p[0], p[1]) for p in pairs]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in special])
    return tokenizer


def _byte_order(symbol: str) -> int:
    code = ord(symbol)
    return code if code < 256 else 1000 + code


def write_adapter(folder: Path, model: Path, rank: int = 8) -> Path:
    """Write a random LoRA adapter (PEFT's layout) for the query and output projections."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = json.loads((model / "config.json").read_text())
    hidden, heads = shape["hidden_size"], shape["num_attention_heads"]
    attention = heads * (shape.get("head_dim") or hidden // heads)
    rng = np.random.default_rng(7)
    weights = {}
    for layer in range(shape["num_hidden_layers"]):
        for name, (inside, outside) in {
            "q_proj": (hidden, attention),
            "o_proj": (attention, hidden),
        }.items():
            p = f"base_model.model.model.layers.{layer}.self_attn.{name}."
            weights[p + "lora_A.weight"] = rng.standard_normal((rank, inside)).astype(np.float32)
            weights[p + "lora_B.weight"] = rng.standard_normal((outside, rank)).astype(np.float32)
    save_file(weights, str(folder / "adapter_model.safetensors"))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": ["q_proj", "o_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
