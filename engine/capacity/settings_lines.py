"""The settings that a plan stands for, under the names that ``.env`` takes."""

from __future__ import annotations

from pathlib import Path

from engine.capacity.gpus import Gpu
from engine.capacity.memory import Serving
from engine.capacity.model import Model
from engine.vllm.preflight import FP8_NATIVE


def gpu_settings(model: Model, gpu: Gpu, serving: Serving, longest: int) -> dict[str, str]:
    """Settings of one vLLM replica."""
    method = model.method(serving.quantization)
    own = model.checkpoint.family != "none"
    # An INT8 checkpoint says itself what it is.
    quantization = "auto" if own or method == "int8" else method
    found = {
        "MODEL_NAME": model_name(model),
        "ENGINE": "vllm",
        "QUANTIZATION": quantization,
        "MAX_MODEL_LEN": str(longest),
        "MAX_NUM_SEQS": str(serving.max_num_seqs),
        "MAX_NUM_BATCHED_TOKENS": str(serving.batched_tokens),
        "GPU_MEMORY_UTILIZATION": f"{serving.utilization:g}",
        "KV_CACHE_DTYPE": serving.kv_dtype,
        "TENSOR_PARALLEL_SIZE": str(serving.tensor_parallel),
    }
    if not gpu.bfloat16:
        found["DTYPE"] = "float16"
    if not serving.cuda_graphs:
        found["ENFORCE_EAGER"] = "true"
    return found


def cpu_settings(
    model: Model, precision: str, threads: int, seats: int, kv_tokens: int, longest: int
) -> dict[str, str]:
    """Settings of one replica of the ONNX engine."""
    return {
        "MODEL_NAME": model_name(model),
        "ENGINE": "onnx",
        "ONNX_PRECISION": precision,
        "ONNX_THREADS": str(threads),
        "MAX_MODEL_LEN": str(longest),
        "MAX_NUM_SEQS": str(seats),
        "ONNX_KV_TOKENS": str(kv_tokens),
    }


def model_name(model: Model) -> str:
    """What MODEL_NAME takes; of a config alone the name that it remembers, or its folder."""
    if not Path(model.source).expanduser().is_file():
        return model.source
    named = model.architecture.config.get("_name_or_path")
    return str(named) if named else str(Path(model.source).resolve().parent)


def notes(gpu: Gpu, serving: Serving) -> list[str]:
    """What to look at before these settings are counted on."""
    found = []
    if serving.kv_dtype.startswith("fp8") and gpu.capability < FP8_NATIVE:
        found.append(
            f"{gpu.title} has no FP8 units, and not every attention backend of vLLM keeps its KV "
            "in fp8 there: try the start before you count on it"
        )
    return found
