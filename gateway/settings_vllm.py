"""The settings of the vLLM engine; names and defaults follow vLLM's own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode

from engine.config import VllmOptions

# What vLLM itself decodes together by default; small GPUs and CPUs want less.
VLLM_MAX_NUM_SEQS = 256
_JSON_FIELDS = ("speculative_config", "engine_args")
_MAY_BE_EMPTY = ("gpu_memory_utilization", "max_num_batched_tokens")


class VllmSettings(BaseSettings):
    """Mixed into ``Settings``. They have no effect on the other engines."""

    quantization: str = Field(
        "auto",
        pattern=r"^[A-Za-z0-9_\-]{1,40}$",
        description="auto (as the checkpoint says), none, fp8, awq, or another name of vLLM's.",
    )
    dtype: str = Field(
        "auto",
        pattern="^(auto|half|float16|bfloat16|float|float32)$",
        description="Type of weights and activations: auto, float16, bfloat16 or float32.",
    )
    kv_cache_dtype: str = Field(
        "auto",
        pattern=r"^[a-z0-9_]{1,40}$",
        description="Type of the KV cache: auto, fp8, or another name of vLLM's.",
    )
    gpu_memory_utilization: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Share of each GPU that vLLM takes (of RAM on CPUs); empty: vLLM's own.",
    )
    tensor_parallel_size: int = Field(
        1, ge=1, le=1024, description="GPUs that share each layer of the model."
    )
    pipeline_parallel_size: int = Field(
        1, ge=1, le=1024, description="Groups of GPUs that share the model's layers out."
    )
    data_parallel_size: int = Field(
        1, ge=1, le=1024, description="Copies of the model, each with its own scheduler."
    )
    max_num_batched_tokens: int | None = Field(
        None, ge=16, le=10_000_000, description="Tokens per step of vLLM; empty: vLLM's own."
    )
    enable_prefix_caching: bool = Field(True, description="Let vLLM reuse the KV of prefixes.")
    enforce_eager: bool = Field(
        False, description="Start sooner and run slower: no CUDA graphs, no compilation."
    )
    speculative_config: Annotated[dict[str, Any] | None, NoDecode] = Field(
        None,
        description='vLLM\'s speculative decoding, a JSON object such as {"method":"ngram",'
        '"num_speculative_tokens":4,"prompt_lookup_max":4}.',
    )
    lora_modules: Annotated[dict[str, str], NoDecode] = Field(
        {}, description="LoRA adapters: name=folder, comma-separated."
    )
    trust_remote_code: bool = Field(
        False, description="Run Python code that comes with a model; only for models you trust."
    )
    engine_args: Annotated[dict[str, Any], NoDecode] = Field(
        {}, description="Any other field of vLLM's AsyncEngineArgs, as a JSON object."
    )

    @field_validator(*_MAY_BE_EMPTY, mode="before")
    @classmethod
    def _empty_is_vllms(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator(*_JSON_FIELDS, mode="before")
    @classmethod
    def _parse_object(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if not value.strip():
            return {}
        try:
            parsed = json.loads(value)
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from None
        if not isinstance(parsed, dict):
            raise ValueError('a JSON object is needed, such as {"name": 1}')
        return parsed

    @field_validator("lora_modules", mode="before")
    @classmethod
    def _parse_adapters(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if any(not (name.strip() and equals and path.strip()) for name, equals, path in pairs):
            raise ValueError("each adapter is name=folder")
        return {name.strip(): path.strip() for name, _, path in pairs}

    def vllm_options(self, max_num_seqs: int | None) -> VllmOptions:
        """The part of the settings that only vLLM reads."""
        speculative: Mapping[str, Any] | None = self.speculative_config
        return VllmOptions(
            quantization=self.quantization,
            dtype=self.dtype,
            kv_cache_dtype=self.kv_cache_dtype,
            gpu_memory_utilization=self.gpu_memory_utilization,
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size,
            data_parallel_size=self.data_parallel_size,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=self.max_num_batched_tokens,
            enable_prefix_caching=self.enable_prefix_caching,
            enforce_eager=self.enforce_eager,
            speculative_config=speculative or None,
            lora_modules=self.lora_modules,
            trust_remote_code=self.trust_remote_code,
            engine_args=self.engine_args,
        )
