"""How the contract suite gets an engine of each kind. A new engine is one more class."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from random_llama import Shape, random_weights, write_prepared

from engine.base import Engine
from engine.config import EngineConfig
from engine.fake import FakeEngine
from engine.onnx.engine import OnnxEngine

MAX_MODEL_LEN = 512
STEP_S = 0.004
"""What a step of a slowed engine takes at least, so that phases can be observed."""


class Factory(Protocol):
    """Builds engines of one kind for the suite."""

    def build(self, **config: Any) -> Engine:
        """An engine that has not started; ``config`` overrides EngineConfig's defaults."""

    def slow_down(self, engine: Engine) -> None:
        """Make a started engine take STEP_S or more per step."""

    def kill(self, engine: Engine) -> None:
        """Make a started engine die, as by a crash, while it works."""


def base_config(**config: Any) -> EngineConfig:
    return replace(EngineConfig(max_model_len=MAX_MODEL_LEN, max_num_seqs=8), **config)


class FakeFactory:
    """The scripted engine, answering with seeded words."""

    def build(self, **config: Any) -> FakeEngine:
        return FakeEngine(base_config(**config))

    def slow_down(self, engine: Engine) -> None:
        assert isinstance(engine, FakeEngine)
        engine._script = replace(engine._script, ttft_s=STEP_S * 10, itl_s=STEP_S)

    def kill(self, engine: Engine) -> None:
        assert isinstance(engine, FakeEngine)
        engine.die()


class OnnxFactory:
    """A small random Llama on onnxruntime."""

    def __init__(self, scratch: Path) -> None:
        shape = Shape(max_len=MAX_MODEL_LEN)
        self._folder = write_prepared(scratch / "llama", shape, random_weights(shape))

    def build(self, **config: Any) -> OnnxEngine:
        small_chunks = {"max_prefill_chunk": 16}
        return OnnxEngine(base_config(options=small_chunks, threads=1, **config), self._folder)

    def slow_down(self, engine: Engine) -> None:
        stepper = self._stepper(engine)
        decode, prefill = stepper.decode, stepper.prefill

        def slow_decode() -> None:
            time.sleep(STEP_S)
            decode()

        def slow_prefill() -> bool:
            time.sleep(STEP_S)
            return prefill()

        stepper.decode, stepper.prefill = slow_decode, slow_prefill

    def kill(self, engine: Engine) -> None:
        def crash() -> None:
            raise RuntimeError("killed by the contract suite")

        self._stepper(engine).decode = crash

    def _stepper(self, engine: Engine) -> Any:
        assert isinstance(engine, OnnxEngine)
        assert engine._worker is not None
        return engine._worker._stepper
