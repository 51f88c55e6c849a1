"""A checkpoint of DistilGPT2's kind in small: its layout on the hub, its kind of tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

TEXTS = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind at all.",
    "Once upon a time there was a gateway that took requests and gave them to an engine.",
    "Wie spät ist es? Es ist fünf Uhr, und die Grüße kommen später.",
    "def mean(values): return sum(values) / len(values)",
]
EOS = "<|endoftext|>"


def write_gpt2(folder: Path) -> Path:
    """Random weights under the names without a prefix, beside masks as bytes, no chat template."""
    import torch
    from safetensors.torch import save_file
    from transformers import GPT2Config, GPT2LMHeadModel

    vocab = write_tokenizer(folder)
    config = GPT2Config(
        vocab_size=vocab,
        n_positions=256,
        n_embd=96,
        n_layer=3,
        n_head=4,
        initializer_range=0.2,
        bos_token_id=vocab - 1,
        eos_token_id=vocab - 1,
    )
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # biases and norms start at 0 and 1 and would hide a mistake
                parameter += torch.randn_like(parameter) * 0.2
    tensors = {k: v.contiguous() for k, v in model.transformer.state_dict().items()}
    mask = torch.ones(1, 1, config.n_positions, config.n_positions, dtype=torch.uint8)
    for layer in range(config.n_layer):
        tensors[f"h.{layer}.attn.bias"] = mask.tril()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    written = config.to_dict() | {"architectures": ["GPT2LMHeadModel"]}
    (folder / "config.json").write_text(json.dumps(written, default=str))
    return folder


def write_tokenizer(folder: Path) -> int:
    """Train byte-level BPE on TEXTS; the end token is the last id. Returns the vocabulary."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.trainers import BpeTrainer

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens([EOS])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 256}))
    return int(tokenizer.get_vocab_size())
