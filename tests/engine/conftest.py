"""Models and engines for the tests of the engine package."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from random_llama import Shape, random_weights, write_prepared

from engine.config import EngineConfig
from engine.onnx.engine import OnnxEngine

StartOnnx = Callable[..., Awaitable[OnnxEngine]]


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder with a small random Llama; do not write into it."""
    shape = Shape()
    return write_prepared(tmp_path_factory.mktemp("llama"), shape, random_weights(shape))


@pytest.fixture
async def start_onnx(llama: Path) -> Any:
    """Starts engines on the small Llama, or on another folder, and stops them at the end."""
    started = []

    async def start(folder: Path = llama, **config: Any) -> OnnxEngine:
        engine = OnnxEngine(replace(EngineConfig(max_num_seqs=8, threads=1), **config), folder)
        started.append(engine)
        await engine.start()
        return engine

    yield start
    for engine in started:
        await engine.stop(0)
