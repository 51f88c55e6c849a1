"""The bundled tiny chat model: its id and where its files are. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

MODEL_ID = "tiny-chat"


def model_dir() -> Path:
    """The Hugging Face folder of the bundled model, shipped inside the package."""
    return Path(__file__).resolve().parent / MODEL_ID
