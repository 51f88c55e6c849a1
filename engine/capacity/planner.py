"""One answer to "what do I need": memory, speed, replicas, money and settings in one piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from engine.base import EngineStartError
from engine.capacity import CapacityError, DoesNotFit
from engine.capacity.advise import methods_on, system
from engine.capacity.calibrate import Calibration
from engine.capacity.cpu import CpuStep, weight_bytes
from engine.capacity.cpu import system as cpu_system
from engine.capacity.decide import decide
from engine.capacity.fit import check
from engine.capacity.gpus import Gpu
from engine.capacity.memory import Budget, Serving
from engine.capacity.model import Model
from engine.capacity.plan_parts import (
    answer_part,
    cost_part,
    model_part,
    reads_mostly,
    speed_part,
)
from engine.capacity.question import Question
from engine.capacity.roofline import Efficiency, GpuStep, Work
from engine.capacity.settings_lines import cpu_settings, gpu_settings, notes
from engine.capacity.traffic import Traffic
from engine.vllm.preflight import plan as preflight

LEAST_KV_TOKENS = 64  # what ONNX_KV_TOKENS takes at least
Json = dict[str, Any]
Progress = Callable[[str], None]


def plan_gpu(
    question: Question,
    gpu: Gpu,
    serving: Serving,
    efficiency: Efficiency,
    progress: Progress = lambda _: None,
) -> Json:
    """Plan for vLLM on ``gpu``. Raises CapacityError."""
    model = question.model
    method = model.method(serving.quantization)
    if serving.batched_tokens < serving.max_num_seqs:
        raise CapacityError(
            f"vLLM needs MAX_NUM_BATCHED_TOKENS ({serving.batched_tokens}) to be at least "
            f"MAX_NUM_SEQS ({serving.max_num_seqs})"
        )
    note = _runs(model, gpu, serving.quantization)
    progress("sizing memory")
    serving, room = _fitted(question, gpu, serving)
    step = GpuStep(model, gpu, serving, efficiency)
    progress("simulating")
    found = decide(
        system(room, step, serving),
        _bounded(question),
        question.target,
        question.requests,
        question.seed,
    )
    shape = room.layout
    cost = question.prices.cost(gpu.name, serving.tensor_parallel, found.replicas, question.region)
    longest = question.longest
    settings = gpu_settings(model, gpu, serving, longest)
    alone = Work(1, longest, longest)
    return {
        "model": model_part(model),
        "hardware": {
            "gpu": gpu.title,
            "gpus_per_replica": serving.tensor_parallel,
            "compute_capability": f"{gpu.capability[0]}.{gpu.capability[1]}",
        },
        "memory": {
            "usable_bytes": room.usable,
            "weights_bytes": room.weights,
            "weights_in": method if model.checkpoint.family == "none" else model.checkpoint.method,
            "activations_bytes": room.activations,
            "context_bytes": room.context,
            "cuda_graphs_bytes": room.cuda_graphs,
            "kv_bytes": room.kv,
            "kv_bytes_per_token": shape.bytes_per_token,
            "state_bytes_per_sequence": shape.state_bytes,
            "block_tokens": shape.block_size,
            "block_bytes": shape.block_bytes,
            "blocks": room.blocks,
            "longest_sequence": min(room.longest, model.architecture.max_model_len or 10**9),
            "full_length_sequences": room.sequences(longest),
        },
        "speed": {
            "decode_one_sequence_ms": step(alone) * 1000,
            "decode_bound": "memory bandwidth" if reads_mostly(step, alone) else "compute",
            **speed_part(found, question),
        },
        "efficiency": {
            "bandwidth": efficiency.bandwidth,
            "compute": efficiency.compute,
            "step_overhead_s": efficiency.overhead,
        },
        **answer_part(found, question),
        "cost": cost_part(question, cost),
        "settings": settings,
        "notes": [text for text in (note, *notes(gpu, serving)) if text],
    }


def plan_cpu(
    question: Question,
    precision: str,
    calibration: Calibration,
    memory: int,
    seats: int,
    progress: Progress = lambda _: None,
) -> Json:
    """Plan for the ONNX engine on the CPU that ``calibration`` measured. Raises CapacityError."""
    precision = "int8" if precision == "auto" else precision
    model, longest = question.model, question.longest
    replica = cpu_system(model, precision, calibration, memory, seats, longest)
    progress("simulating")
    found = decide(replica, _bounded(question), question.target, question.requests, question.seed)
    layout = replica.layout
    tokens = max(LEAST_KV_TOKENS, min(replica.blocks * layout.block_size, seats * longest))
    curve = calibration.cache[precision]
    step = CpuStep(model, precision, calibration)
    return {
        "model": model_part(model),
        "hardware": {
            "gpu": f"{calibration.cpu}, {calibration.threads} thread(s)",
            "bandwidth_gb_per_s": calibration.bandwidth / 1e9,
            "gemm_gops": 2 * max(curve) / curve[max(curve)] / 1e9,
        },
        "memory": {
            "usable_bytes": memory,
            "weights_bytes": weight_bytes(model.weights, precision),
            "weights_in": precision,
            "kv_bytes_per_token": layout.bytes_per_token,
            "block_tokens": layout.block_size,
            "block_bytes": layout.block_bytes,
            "blocks": replica.blocks,
            "full_length_sequences": replica.blocks // layout.blocks(longest),
        },
        "speed": {
            "decode_one_sequence_ms": step(Work(1, longest, longest)) * 1000,
            **speed_part(found, question),
        },
        **answer_part(found, question),
        "cost": cost_part(question, question.prices.cost("cpu", 1, found.replicas)),
        "settings": cpu_settings(model, precision, calibration.threads, seats, tokens, longest),
        "notes": [],
    }


def _runs(model: Model, gpu: Gpu, quantization: str) -> str:
    """What to know of this method there. Raises CapacityError where a start would refuse it."""
    if model.checkpoint.family != "none" or quantization == "auto":
        wanted = "auto" if quantization == "int8" else quantization
        try:
            return preflight(wanted, model.checkpoint, gpu.hardware()).note
        except EngineStartError as error:
            raise CapacityError(str(error)) from error
    known = methods_on(model, gpu)
    if quantization not in known:
        raise CapacityError(
            f"--quantization {quantization} does not run on {gpu.title}: take auto or one of "
            f"{', '.join(known)}; llm-gateway model advise says why"
        )
    return known[quantization]


def _fitted(question: Question, gpu: Gpu, serving: Serving) -> tuple[Serving, Budget]:
    """The serving with its number of GPUs settled, and its memory."""
    wanted = question.tensor_parallel
    first: CapacityError | None = None
    for parallel in (wanted,) if wanted else (1, 2, 4, 8):
        under = replace(serving, tensor_parallel=parallel)
        try:
            return under, check(question.model, gpu, under, question.longest)
        except DoesNotFit as error:
            first = first or error
        except CapacityError as error:  # heads cannot be split so: not a reason to stop
            if wanted:
                raise
            first = first or error
    raise first or CapacityError("no number of GPUs fits")


def _bounded(question: Question) -> Traffic:
    """The traffic with what MAX_MODEL_LEN would refuse cut down to it."""
    limit, traffic = question.longest, question.traffic
    if traffic.longest <= limit:
        return traffic
    output = tuple(min(n, limit - 1) for n in traffic.output.quantiles)
    room = limit - max(output)
    if room < 1:
        raise CapacityError(
            f"{limit} tokens leave no room for prompts beside the outputs asked for"
        )
    prompt = tuple(min(n, room) for n in traffic.prompt.quantiles)
    return replace(
        traffic,
        prompt=replace(traffic.prompt, quantiles=prompt),
        output=replace(traffic.output, quantiles=output),
    )
