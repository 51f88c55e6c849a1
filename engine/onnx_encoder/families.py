"""Which checkpoints are encoders for embeddings: the config's architecture decides."""

from __future__ import annotations

import json
from pathlib import Path

# Each is exported in tests/engine and compared with transformers. A checkpoint saved with its
# head of masked-language modelling serves as well: the head is left out.
ENCODERS: dict[str, str] = {
    "BertModel": "BERT, MiniLM, BGE, E5, GTE",
    "DistilBertModel": "DistilBERT",
    "RobertaModel": "RoBERTa",
    "XLMRobertaModel": "XLM-RoBERTa, multilingual E5, BGE-M3",
    "MPNetModel": "MPNet",
    "AlbertModel": "ALBERT",
    "ElectraModel": "ELECTRA",
    "CamembertModel": "CamemBERT",
    "ModernBertModel": "ModernBERT",
    "NomicBertModel": "Nomic BERT",
    "DebertaV2Model": "DeBERTa v2 and v3",
}
MASKED_LM: dict[str, str] = {
    name.removesuffix("Model") + "ForMaskedLM": text for name, text in ENCODERS.items()
}
FAMILIES = ENCODERS | MASKED_LM

# Position ids of these begin behind the padding token's id.
OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})


def is_encoder(folder: Path) -> bool:
    """Whether the folder's ``config.json`` names an encoder; no error for a folder without."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return config["architectures"][0] in FAMILIES
    except (OSError, ValueError, LookupError, TypeError):
        return False


def is_embedder(folder: Path) -> bool:
    """Whether the folder holds any embedding model, a decoder with a pooling layer included."""
    return is_encoder(folder) or (folder / "modules.json").is_file()
