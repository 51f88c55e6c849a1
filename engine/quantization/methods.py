"""The methods of ``llm-gateway model quantize`` and where each is implemented.

A module named here has ``quantize(source: Path, out: Path, options: Options) -> Report``.
``source`` is a folder, a file or a hub id (``bundled`` arrives as the bundled checkpoint's folder);
``out`` does not exist, or is empty, and must appear whole or not at all. It raises EngineStartError
with one sentence.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

from engine.models.find import BUNDLED_NAME, BundledModel
from engine.quantization.report import Options, QuantizationError, Report
from engine.quantization.sources import place

ONNX = "engine.quantization.onnx_methods"
VLLM = "engine.quantization.llmcompressor"


@dataclass(frozen=True, slots=True)
class Method:
    """One method, its text for people and the module that does it."""

    text: str
    module: str = ONNX


METHODS: dict[str, Method] = {
    "int8": Method("int8, one activation scale per token: what the ONNX engine serves best"),
    "int8_block": Method("MatMulNBits, 8 bits, one scale per 32 weights"),
    "int4": Method("MatMulNBits, 4 bits, one scale per 32 weights"),
    "dynamic": Method("onnxruntime's dynamic int8: one activation scale per tensor and run"),
    "static": Method("QDQ int8 with ranges from a calibration set"),
    "awq": Method("for vLLM: 4-bit weights after AWQ (W4A16)", VLLM),
    "fp8": Method("for vLLM: float8 weights, activations scaled per token", VLLM),
    "w8a8": Method("for vLLM: int8 weights, activations scaled per token", VLLM),
}


def quantize(source: str, out: Path, options: Options) -> Report:
    """Quantise by the method that ``options`` names; raises EngineStartError."""
    method = METHODS.get(options.method)
    if method is None:
        raise QuantizationError(
            f"there is no method {options.method!r}: take one of {', '.join(METHODS)}"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise QuantizationError(f"{out} exists and is not empty: remove it or name another folder")
    path = BundledModel().checkpoint if source == BUNDLED_NAME else place(source)
    module = importlib.import_module(method.module)
    report: Report = module.quantize(path, out, options)
    return report
