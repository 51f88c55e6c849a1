"""What it takes to build an engine, free of where the values came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

BUNDLED = "bundled"
BUNDLED_NAME = "tiny-chat"

EngineKind = Literal["auto", "onnx", "vllm", "fake"]
OnnxPrecision = Literal["auto", "fp32", "int8", "int8_block", "int4"]


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """Settings of the vLLM engine only. Names follow vLLM's engine arguments.

    Attributes:
        quantization: ``auto`` reads the checkpoint; ``none``, ``fp8``, ``awq``, or any
            other name that vLLM takes.
        gpu_memory_utilization: share of each GPU (of RAM on CPU builds); None: vLLM's own.
        max_num_seqs: sequences decoded together; None takes ``EngineConfig.max_num_seqs``.
        max_num_batched_tokens: tokens per step; None: vLLM's own.
        lora_modules: adapter name to folder or hub id.
        engine_args: any other field of vLLM's ``AsyncEngineArgs``.
    """

    quantization: str = "auto"
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    gpu_memory_utilization: float | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    data_parallel_size: int = 1
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    enable_prefix_caching: bool = True
    enforce_eager: bool = False
    speculative_config: Mapping[str, Any] | None = None
    lora_modules: Mapping[str, str] = field(default_factory=dict)
    trust_remote_code: bool = False
    engine_args: Mapping[str, Any] = field(default_factory=dict)


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
        tool_parser, reasoning_parser: formats of the model's output, for the gateway; empty:
            what its chat template tells.
        vllm: settings of the vLLM engine only.
        options: settings of one engine kind only, such as a fake engine's script.
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
    tool_parser: str = ""
    reasoning_parser: str = ""
    vllm: VllmOptions = field(default_factory=VllmOptions)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names clients may use; the first is answered. Adapters are asked for as models."""
        adapters = () if self.kind in ("onnx", "fake") else tuple(self.vllm.lora_modules)
        return (*self._own_names, *adapters)

    @property
    def _own_names(self) -> tuple[str, ...]:
        if self.served_names:
            return self.served_names
        if self.model == BUNDLED:
            return (BUNDLED_NAME, BUNDLED)
        # A hub id is a name people know; of a path only the folder says something.
        is_path = self.model.startswith((".", "/", "~")) or Path(self.model).exists()
        return (Path(self.model).name or self.model,) if is_path else (self.model,)
