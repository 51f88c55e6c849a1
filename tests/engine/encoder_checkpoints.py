"""Small encoders with random weights, made by transformers, and what transformers makes of them."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.trainers import WordPieceTrainer

HIDDEN = 32
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LONGEST = 96
TEXTS = [
    "hello",
    "the quick brown fox jumps over the lazy dog",
    "a model server batches prompts of like length",
    "embeddings are vectors that stand for texts",
    "one two three four five six seven eight nine ten eleven twelve thirteen",
]
_COMMON = {"vocab_size": 300, "hidden_size": HIDDEN, "num_hidden_layers": 2}
_HEADS = {"num_attention_heads": 4, "intermediate_size": 64}
_BERT = _COMMON | _HEADS | {"max_position_embeddings": LONGEST, "pad_token_id": 0}
_ROBERTA = _BERT | {"max_position_embeddings": LONGEST + 1}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "BertModel": ("BertConfig", _BERT),
    "DistilBertModel": (
        "DistilBertConfig",
        {
            "vocab_size": 300,
            "dim": HIDDEN,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": LONGEST,
        },
    ),
    "RobertaModel": ("RobertaConfig", _ROBERTA),
    "XLMRobertaModel": ("XLMRobertaConfig", _ROBERTA),
    "MPNetModel": ("MPNetConfig", _BERT | {"max_position_embeddings": LONGEST + 2}),
    "AlbertModel": ("AlbertConfig", _BERT | {"embedding_size": 16}),
    "ElectraModel": ("ElectraConfig", _BERT | {"embedding_size": 16}),
    "CamembertModel": ("CamembertConfig", _ROBERTA),
    "ModernBertModel": (
        "ModernBertConfig",
        _BERT
        | {
            "num_hidden_layers": 4,
            "local_attention": 16,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "cls_token_id": 2,
            "sep_token_id": 3,
        },
    ),
    "NomicBertModel": ("NomicBertConfig", _BERT),
    "DebertaV2Model": (
        "DebertaV2Config",
        _BERT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    ),
}


@lru_cache(maxsize=1)
def word_piece() -> Tokenizer:
    """A WordPiece tokenizer as BERT has it, trained on the texts."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.train_from_iterator(
        TEXTS * 4, WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    # As published models have it: the engine must not cut or pad silently.
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    return tokenizer


def write_encoder(
    folder: Path,
    family: str = "BertModel",
    *,
    pooling: str | None = "mean",
    normalize: bool = True,
    seed: int = 0,
    **config: Any,
) -> Path:
    """A complete checkpoint; ``pooling`` None leaves sentence-transformers' files out."""
    import torch
    import transformers

    name, sizes = FAMILIES[family]
    torch.manual_seed(seed)
    wanted = getattr(transformers, name)(**sizes)
    model = transformers.AutoModel.from_config(wanted)
    with torch.no_grad():
        for weight in model.parameters():  # untrained encoders answer nearly alike to all
            weight.add_(torch.randn_like(weight) * 0.2)
    model.save_pretrained(folder)
    write_extras(folder, pooling=pooling, normalize=normalize, **config)
    return folder


def write_extras(folder: Path, *, pooling: str | None, normalize: bool, **config: Any) -> None:
    """Tokenizer, sentence-transformers' files, and further entries of the config."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    word_piece().save(str(folder / "tokenizer.json"))
    if pooling is None:
        return
    modules = ["Transformer", "Pooling"] + ["Normalize"] * normalize
    (folder / "modules.json").write_text(
        json.dumps(
            [
                {
                    "idx": i,
                    "name": str(i),
                    "path": f"{i}_{kind}" if i else "",
                    "type": f"sentence_transformers.models.{kind}",
                }
                for i, kind in enumerate(modules)
            ]
        )
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {
        "mean": "mean_tokens",
        "cls": "cls_token",
        "lasttoken": "lasttoken",
        "max": "max_tokens",
    }
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps(
            {"word_embedding_dimension": HIDDEN}
            | {f"pooling_mode_{long}": short == pooling for short, long in modes.items()}
        )
    )


def encode(text: str) -> list[int]:
    """Ids with special tokens, neither cut nor padded."""
    tokenizer = Tokenizer.from_str(word_piece().to_str())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer.encode(text).ids


def expected(
    folder: Path, prompts: list[list[int]], pooling: str = "mean", *, normalize: bool = True
) -> np.ndarray:
    """What transformers makes of each prompt alone, float32 [n, HIDDEN]."""
    import torch
    import transformers

    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    rows = []
    for prompt in prompts:
        with torch.no_grad():
            hidden = model(
                input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)).long()
            ).last_hidden_state[0]
        row = {
            "mean": lambda h: h.mean(0),
            "cls": lambda h: h[0],
            "lasttoken": lambda h: h[-1],
            "max": lambda h: h.max(0).values,
        }[pooling](hidden).numpy()
        rows.append(row / np.linalg.norm(row) if normalize else row)
    return np.stack(rows)
