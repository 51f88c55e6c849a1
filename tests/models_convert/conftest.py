"""Checkpoints converted once per test run."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from convert_checkpoints import Converted, make_checkpoint

from engine.config import EngineConfig
from engine.models.convert import prepare


@pytest.fixture(scope="session")
def convert_extra() -> None:
    """Skip where the extra that conversion needs is not installed."""
    for name in ("torch", "transformers", "onnxruntime_genai", "onnx_ir"):
        pytest.importorskip(name)


@pytest.fixture(scope="session")
def converted(
    convert_extra: None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Converted]:
    """Make or reuse the checkpoint of a family; variants convert on first use."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    root = tmp_path_factory.mktemp("families")
    made: dict[str, Converted] = {}

    def get(family: str) -> Converted:
        if family not in made:
            checkpoint = make_checkpoint(root / family, family)
            config = EngineConfig(cache_dir=root / "cache")
            variant = partial(_prepare, str(checkpoint), config)
            made[family] = Converted(checkpoint, variant)
        return made[family]

    return get


def _prepare(source: str, config: EngineConfig, precision: Any) -> Path:
    return prepare(source, precision, config, lambda *_: None)
