"""Our settings to vLLM's ``AsyncEngineArgs``; ``ENGINE_ARGS`` checked by name and type."""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.base import EngineStartError
from engine.config import EngineConfig
from engine.vllm.preflight import Plan

# Fields that have a setting of their own, or that this engine decides.
_SETTING_OF = {
    "model": "MODEL_NAME",
    "served_model_name": "SERVED_MODEL_NAME",
    "revision": "REVISION",
    "max_model_len": "MAX_MODEL_LEN",
    "max_num_seqs": "MAX_NUM_SEQS",
    "max_num_batched_tokens": "MAX_NUM_BATCHED_TOKENS",
    "quantization": "QUANTIZATION",
    "dtype": "DTYPE",
    "kv_cache_dtype": "KV_CACHE_DTYPE",
    "gpu_memory_utilization": "GPU_MEMORY_UTILIZATION",
    "tensor_parallel_size": "TENSOR_PARALLEL_SIZE",
    "pipeline_parallel_size": "PIPELINE_PARALLEL_SIZE",
    "data_parallel_size": "DATA_PARALLEL_SIZE",
    "enable_prefix_caching": "ENABLE_PREFIX_CACHING",
    "enforce_eager": "ENFORCE_EAGER",
    "speculative_config": "SPECULATIVE_CONFIG",
    "trust_remote_code": "TRUST_REMOTE_CODE",
    "enable_lora": "LORA_MODULES",
    "max_num_queued_reqs": "MAX_QUEUE",
}
_FIXED = {
    "disable_log_stats": "the gateway exports vLLM's metrics itself",
    "skip_tokenizer_init": "the gateway needs the tokenizer",
    "runner": "the checkpoint decides between generation and embeddings",
    "aggregate_engine_logging": "the gateway exports vLLM's metrics itself",
    "stream_interval": "the gateway merges deltas itself",
    "structured_outputs_config": "only the guidance backend reads the gateway's grammars",
}


def arguments(
    config: EngineConfig,
    model: tuple[str, str | None],
    plan: Plan,
    fields: Mapping[str, Any],
    kv_bytes: int | None = None,
    spare_slot: bool = False,
) -> dict[str, Any]:
    """Keyword arguments for ``AsyncEngineArgs``.

    Args:
        model: folder or hub id, and its revision.
        fields: the installed vLLM's fields with their types, from ``known_fields``.
        kv_bytes: KV memory to ask for; None leaves it to vLLM.
        spare_slot: keep one slot for adapters empty.

    Raises EngineStartError naming a field of ENGINE_ARGS that is unknown or of a wrong type.
    """
    options = config.vllm
    values: dict[str, Any] = {
        "model": model[0],
        "revision": model[1],
        "tokenizer_revision": model[1],
        "max_model_len": config.max_model_len,
        "max_num_seqs": options.max_num_seqs or config.max_num_seqs,
        "max_num_batched_tokens": options.max_num_batched_tokens,
        "quantization": plan.quantization,
        "dtype": options.dtype,
        "kv_cache_dtype": options.kv_cache_dtype,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "kv_cache_memory_bytes": kv_bytes,
        "tensor_parallel_size": options.tensor_parallel_size,
        "pipeline_parallel_size": options.pipeline_parallel_size,
        "data_parallel_size": options.data_parallel_size,
        "enable_prefix_caching": options.enable_prefix_caching,
        "enforce_eager": options.enforce_eager,
        "speculative_config": dict(options.speculative_config or {}) or None,
        "trust_remote_code": options.trust_remote_code,
        "disable_log_stats": True,
        "scheduling_policy": "priority",
        # The same grammars as the ONNX engine, which uses llguidance as well.
        "structured_outputs_config": {"backend": "guidance"},
        **lora_arguments(options.lora_modules, spare_slot),
    }
    values = {name: value for name, value in values.items() if value is not None}
    for name, value in options.engine_args.items():
        values[name] = checked(name, value, fields)
    return values


def checked(name: str, value: Any, fields: Mapping[str, Any]) -> Any:
    """One entry of ENGINE_ARGS as vLLM takes it; EngineStartError when it would not."""
    if name in _SETTING_OF:
        raise EngineStartError(f"ENGINE_ARGS: {name} has a setting of its own: {_SETTING_OF[name]}")
    if name in _FIXED:
        raise EngineStartError(f"ENGINE_ARGS: {name} cannot be set: {_FIXED[name]}")
    if name not in fields:
        close = difflib.get_close_matches(name, fields, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise EngineStartError(
            f"ENGINE_ARGS: this vLLM has no engine argument {name!r}{hint} "
            "(names are spelled with underscores, as in vLLM's AsyncEngineArgs)"
        )
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        adapter = TypeAdapter(fields[name], config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # the type is a class that carries a configuration of its own
        adapter = TypeAdapter(fields[name])
    try:
        # JSON mode, for a tuple, a set or an enum has no other spelling in JSON.
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        raise EngineStartError(
            f"ENGINE_ARGS: {name} does not take {json.dumps(value)}: {fault['msg']}"
        ) from None
    return value


def known_fields() -> dict[str, Any]:
    """Fields of the installed vLLM's ``AsyncEngineArgs`` with their types."""
    from vllm.engine import arg_utils

    found: dict[str, Any] = {}
    for field in dataclasses.fields(arg_utils.AsyncEngineArgs):
        if not field.name.startswith("_"):
            # One at a time: a type that vLLM imports for checkers only spoils no other field.
            holder = type("Holder", (), {"__annotations__": {field.name: field.type}})
            try:
                found |= typing.get_type_hints(holder, vars(arg_utils))
            except NameError:
                found[field.name] = Any
    return found


def lora_arguments(modules: Mapping[str, str], spare_slot: bool) -> dict[str, Any]:
    """vLLM reserves memory by the number and the largest rank of the adapters.

    vLLM's CPU kernels give a request without an adapter slot -1, which is the last one: in
    a batch with another's adapter it would get that adapter's output (seen with 0.32). So
    the last slot is kept empty there.
    """
    if not modules:
        return {}
    return {
        "enable_lora": True,
        "max_loras": len(modules) + spare_slot,
        "max_lora_rank": _allowed_rank(max(adapter_rank(*item) for item in modules.items())),
    }


def adapter_rank(name: str, folder: str) -> int:
    """Rank of an adapter in PEFT's layout; EngineStartError when it is none."""
    path = Path(folder, "adapter_config.json")
    if not path.is_file():
        raise EngineStartError(
            f"LORA_MODULES: {name}: there is no adapter_config.json in {folder}; give the "
            "folder of an adapter in PEFT's layout"
        )
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["r"])
    except (KeyError, TypeError, ValueError) as error:
        raise EngineStartError(f"LORA_MODULES: {name}: {path} has no rank r ({error})") from None


def _allowed_rank(rank: int) -> int:
    allowed = (8, 16, 32, 64, 128, 256, 320, 512)
    for size in allowed:
        if rank <= size:
            return size
    raise EngineStartError(
        f"LORA_MODULES: rank {rank} is above {allowed[-1]}, the largest that vLLM takes"
    )
