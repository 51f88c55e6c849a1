"""Will it fit? Numbers for people, before vLLM runs out of memory and after it has."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.base import EngineStartError
from engine.config import EngineConfig
from engine.vllm.checkpoint import Checkpoint
from engine.vllm.hardware import Hardware

GIB = 1024**3
# vLLM's default share of a GPU since 0.30; only used for messages.
DEFAULT_UTILISATION = 0.92
# On CPUs vLLM would take that share of all RAM for the KV cache.
_CPU_KV_SHARE = 0.4
_CPU_BLOCK = 128
_MEMORY_WORDS = re.compile(
    r"out of memory|OutOfMemory|No available memory|Free memory on device|KV cache is needed|"
    r"Available memory on node|max seq len|can't allocate|bad_alloc|estimated maximum model length",
    re.IGNORECASE,
)
_ESTIMATE = re.compile(r"estimated maximum model length is (\d+)")


@dataclass(frozen=True, slots=True)
class Need:
    """What one start needs, in bytes per device unless said otherwise.

    Attributes:
        weights: of one device's share of the model; 0 when unknown.
        kv_per_token: of one device; None when unknown.
        max_model_len: tokens of the longest sequence; None when unknown.
    """

    weights: int
    kv_per_token: int | None
    max_model_len: int | None

    @property
    def one_sequence(self) -> int | None:
        if self.kv_per_token is None or self.max_model_len is None:
            return None
        return self.kv_per_token * self.max_model_len


def need(config: EngineConfig, checkpoint: Checkpoint) -> Need:
    options = config.vllm
    shards = options.tensor_parallel_size * options.pipeline_parallel_size
    per_token = checkpoint.kv_bytes_per_token(options.dtype, options.kv_cache_dtype)
    weights = checkpoint.weight_bytes
    if options.quantization == "fp8" and checkpoint.family == "none":
        weights //= max(1, _bytes_of(checkpoint.dtype))
    return Need(
        weights // shards,
        None if per_token is None else math.ceil(per_token / shards),
        config.max_model_len or checkpoint.max_model_len,
    )


def cpu_kv_bytes(config: EngineConfig, needed: Need, hardware: Hardware) -> int | None:
    """KV memory to ask for on a CPU build: enough for ``max_num_seqs`` full sequences, at
    most a share of the free RAM; None where the settings or the environment say it."""
    options = config.vllm
    said = (
        options.gpu_memory_utilization is not None
        or os.environ.get("VLLM_CPU_KVCACHE_SPACE")
        or "kv_cache_memory_bytes" in options.engine_args
        or needed.one_sequence is None
        or needed.kv_per_token is None
    )
    if said or needed.one_sequence is None or needed.kv_per_token is None:
        return None
    block = needed.kv_per_token * _CPU_BLOCK
    sequences = options.max_num_seqs or config.max_num_seqs
    # One more block per sequence: a sequence that ends inside a block takes all of it.
    wanted = sequences * (needed.one_sequence + block)
    least = needed.one_sequence + block
    cap = int((hardware.free - needed.weights) * _CPU_KV_SHARE)
    return int(max(least, min(wanted, cap)))


def check(config: EngineConfig, needed: Need, hardware: Hardware) -> None:
    """Refuse what certainly does not fit. Activations are left out: vLLM measures them."""
    budget = _budget(config, needed, hardware)
    if budget is None:
        return
    kv, source = budget
    if kv <= 0:
        raise EngineStartError(_too_big(config, needed, hardware))
    one = needed.one_sequence
    if one is None or one <= kv:
        return
    raise EngineStartError(
        f"{_sequence_text(needed)}, and {source} leaves {_gib(kv)} for it: "
        f"{_remedies(config, needed, kv, hardware)}"
    )


def explain(
    reason: str, config: EngineConfig, needed: Need, hardware: Hardware, checkpoint: Checkpoint
) -> str:
    """A start's failure in words for the operator; memory failures get the numbers."""
    first = reason.strip().splitlines()[0] if reason.strip() else "no reason given"
    if not _MEMORY_WORDS.search(reason):
        return f"vLLM could not start {checkpoint.source}: {first}"
    facts = []
    if needed.weights:
        facts.append(f"weights {_gib(needed.weights)}")
    if needed.kv_per_token is not None:
        facts.append(f"KV cache {needed.kv_per_token} bytes per token")
    if needed.one_sequence is not None:
        facts.append(f"{_gib(needed.one_sequence)} for one sequence of {needed.max_model_len}")
    facts.append(f"{_gib(hardware.free)} of {_gib(hardware.memory)} free on {hardware.name}")
    budget = _budget(config, needed, hardware)
    kv = budget[0] if budget else 0
    if (estimate := _ESTIMATE.search(reason)) and needed.kv_per_token:
        # vLLM has measured what the activations leave.
        kv = int(estimate[1]) * needed.kv_per_token
    fits = _remedies(config, needed, kv, hardware)
    return f"not enough memory for {checkpoint.source} ({'; '.join(facts)}): {fits}. vLLM: {first}"


def _budget(config: EngineConfig, needed: Need, hardware: Hardware) -> tuple[int, str] | None:
    """Bytes that can at most go to the KV cache of one device, and who says so."""
    options = config.vllm
    space = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "")
    if hardware.kind == "cpu" and space.isdigit() and int(space):
        # Where it is set, vLLM goes by nothing else.
        return int(space) * GIB, f"VLLM_CPU_KVCACHE_SPACE={space}"
    explicit = options.engine_args.get("kv_cache_memory_bytes")
    if isinstance(explicit, int) and explicit > 0:
        return explicit, "kv_cache_memory_bytes in ENGINE_ARGS"
    if hardware.kind == "cpu":
        share = options.gpu_memory_utilization
        if share is None:
            return hardware.free - needed.weights, "the RAM that is free"
        return int(hardware.memory * share) - needed.weights, f"GPU_MEMORY_UTILIZATION={share}"
    if not hardware.memory:
        return None
    share = options.gpu_memory_utilization or DEFAULT_UTILISATION
    return int(hardware.memory * share) - needed.weights, f"GPU_MEMORY_UTILIZATION={share}"


def _remedies(config: EngineConfig, needed: Need, kv: int, hardware: Hardware) -> str:
    """The settings that would fit, best first, joined for a sentence."""
    found = []
    if needed.kv_per_token and (tokens := kv // needed.kv_per_token // 16 * 16) >= 16:
        limit = min(tokens, needed.max_model_len or tokens)
        if needed.max_model_len is None or limit < needed.max_model_len:
            found.append(f"MAX_MODEL_LEN={limit} or less")
    on_cpu = hardware.kind == "cpu"
    space = os.environ.get("VLLM_CPU_KVCACHE_SPACE")
    if on_cpu and space and needed.one_sequence:
        enough = math.ceil(needed.one_sequence / GIB)
        if enough * GIB < hardware.memory:
            found.append(f"VLLM_CPU_KVCACHE_SPACE={enough} or more")
    if not on_cpu:
        if (config.vllm.gpu_memory_utilization or DEFAULT_UTILISATION) < DEFAULT_UTILISATION:
            found.append(f"GPU_MEMORY_UTILIZATION up to {DEFAULT_UTILISATION}")
        if config.vllm.kv_cache_dtype == "auto":
            found.append("KV_CACHE_DTYPE=fp8 (half the KV memory)")
        if config.vllm.tensor_parallel_size < hardware.count:
            found.append(f"TENSOR_PARALLEL_SIZE={hardware.count}")
    return "set " + ", or ".join(found) if found else "use a smaller model or more memory"


def _too_big(config: EngineConfig, needed: Need, hardware: Hardware) -> str:
    text = (
        f"the weights take {_gib(needed.weights)}, and {hardware.name} has "
        f"{_gib(hardware.memory)} ({_gib(hardware.free)} free)"
    )
    share = config.vllm.gpu_memory_utilization or DEFAULT_UTILISATION
    shards = config.vllm.tensor_parallel_size
    gpus = math.ceil(needed.weights * shards / (hardware.memory * share)) if share else 0
    choices = []
    if hardware.kind != "cpu":
        if 0 < gpus <= hardware.count and gpus > shards:
            choices.append(f"TENSOR_PARALLEL_SIZE={gpus} or more")
        if config.vllm.quantization in ("auto", "none"):
            choices.append("QUANTIZATION=fp8 (half the memory of 16-bit weights)")
        choices.append("an AWQ checkpoint with QUANTIZATION=awq (about a quarter)")
    else:
        choices.append("a smaller or a quantised (INT8 W8A8) checkpoint")
    return f"{text}: use {', or '.join(choices)}"


def _sequence_text(needed: Need) -> str:
    return (
        f"one sequence of MAX_MODEL_LEN={needed.max_model_len} tokens needs "
        f"{_gib(needed.one_sequence or 0)} of KV cache ({needed.kv_per_token} bytes per token)"
    )


def _bytes_of(dtype: str) -> int:
    return {"float32": 4, "bfloat16": 2, "float16": 2}.get(dtype, 2)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"


def describe(needed: Need) -> Mapping[str, int | None]:
    """The numbers, for the log."""
    return {
        "weights_bytes": needed.weights,
        "kv_bytes_per_token": needed.kv_per_token,
        "max_model_len": needed.max_model_len,
    }
