"""What it takes to build an engine, free of where the values came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

EngineKind = Literal["auto", "onnx", "vllm", "fake"]
OnnxPrecision = Literal["auto", "fp32", "int8", "int8_block", "int4"]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """One model on one engine.

    Attributes:
        model: ``bundled``, a local folder, or a Hugging Face hub id.
        served_names: names clients may use; the first is answered. Empty: from ``model``.
        revision: hub revision (branch, tag or commit).
        max_model_len: cap on prompt plus output in tokens; None takes the model's own.
        max_num_seqs: sequences decoded together.
        max_waiting: requests that may queue before new ones are refused.
        kv_cache_tokens: KV memory shared by running sequences, in tokens; None means
            ``max_num_seqs`` sequences of full length.
        prefix_cache_tokens: KV memory for finished prefixes, in tokens; 0 turns it off.
        precision: variant of the ONNX model; ``auto`` takes what measured best.
        threads: CPU threads of the ONNX engine; None takes the physical cores.
        itl_ratio: target for the longest gap that a prefill chunk may put between two
            tokens of a running stream, as a multiple of the usual gap.
        cache_dir: where downloaded and converted models are kept.
        options: settings of one engine kind only (vLLM arguments, fake scripts).
    """

    model: str = "bundled"
    kind: EngineKind = "auto"
    served_names: tuple[str, ...] = ()
    revision: str | None = None
    max_model_len: int | None = None
    max_num_seqs: int = 16
    max_waiting: int = 256
    kv_cache_tokens: int | None = None
    prefix_cache_tokens: int = 8192
    precision: OnnxPrecision = "auto"
    threads: int | None = None
    itl_ratio: float = 4.0
    cache_dir: Path = field(default_factory=lambda: Path.home() / ".cache" / "llm-gateway")
    options: dict[str, Any] = field(default_factory=dict)
