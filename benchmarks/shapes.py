"""The model shapes that are compared, and Hugging Face folders of random weights in them.

Speed depends on the shape of a model, not on what its weights say, so nothing has to be
downloaded: every engine gets the same random numbers.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Bump when the folder's contents change, so that folders of an older run are not reused.
FOLDER_VERSION = 2
TOKENIZER_VOCAB = 4096

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of one decoder-only model with tied embeddings."""

    name: str
    title: str
    family: str
    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    rope_theta: float
    norm_eps: float
    attention_bias: bool

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads

    @property
    def matmul_weights(self) -> int:
        """Weights that one decode step has to read: every projection and the head."""
        kv = self.kv_heads * self.head_dim
        per_layer = 2 * self.hidden * self.hidden + 2 * self.hidden * kv
        per_layer += 3 * self.hidden * self.intermediate
        return self.layers * per_layer + self.vocab * self.hidden


SHAPES: dict[str, Shape] = {
    "smollm2-135m": Shape(
        "smollm2-135m", "SmolLM2-135M", "llama", 49152, 576, 1536, 30, 9, 3, 1e5, 1e-5, False
    ),
    "qwen2.5-0.5b": Shape(
        "qwen2.5-0.5b", "Qwen2.5-0.5B", "qwen2", 151936, 896, 4864, 24, 14, 2, 1e6, 1e-6, True
    ),
}


def hf_folder(shape: Shape, work: Path) -> Path:
    """The shape's Hugging Face folder under ``work``, made on first use."""
    folder = work / shape.name / "hf"
    stamp = folder / "made.json"
    wanted = {"version": FOLDER_VERSION, **asdict(shape)}
    if stamp.is_file() and json.loads(stamp.read_text()) == wanted:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    _save_tokenizer(folder)
    _save_model(shape, folder)
    stamp.write_text(json.dumps(wanted))
    return folder


def _save_tokenizer(folder: Path) -> None:
    """Train a small byte-level BPE on the standard library's own source."""
    import argparse
    import glob
    import os

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_VOCAB,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    library = os.path.dirname(argparse.__file__)
    files = sorted(glob.glob(f"{library}/*.py"))[:60]
    texts = (Path(f).read_text(encoding="utf-8", errors="ignore") for f in files)
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def _save_model(shape: Shape, folder: Path) -> None:
    import torch
    import transformers

    common: dict[str, Any] = {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "max_position_embeddings": 2048,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "tie_word_embeddings": True,
        "initializer_range": 0.04,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    torch.manual_seed(0)
    if shape.family == "llama":
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**common))
    else:
        model = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**common))
    model = model.to(torch.bfloat16)
    model.config.dtype = torch.bfloat16
    model.save_pretrained(folder)
