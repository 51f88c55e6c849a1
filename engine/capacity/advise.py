"""Which quantisation for this model on this hardware, and why.

What runs where is decided by ``engine.vllm.preflight``, the same checks that a start makes;
here its answers are put beside memory, speed and money.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.base import EngineStartError
from engine.capacity import CapacityError
from engine.capacity.decide import System, full_speed
from engine.capacity.gpus import Gpu
from engine.capacity.memory import Budget, Serving, budget, gib
from engine.capacity.model import Model
from engine.capacity.roofline import Efficiency, GpuStep, Work
from engine.capacity.traffic import Traffic
from engine.vllm.checkpoint import Family
from engine.vllm.preflight import plan as preflight

METHODS = ("none", "fp8", "int8", "awq")
_TITLES = {
    "none": "16 bits, as published",
    "fp8": "FP8 (8 bits)",
    "int8": "INT8 W8A8",
    "awq": "AWQ W4A16 (4 bits)",
}
_MADE_BY: dict[str, tuple[Family, str]] = {"int8": ("int8", "int8"), "awq": ("w4a16", "AWQ")}
# From the least loss of quality to the most, as published evaluations usually have it.
_BY_QUALITY = {"none": 0, "fp8": 1, "int8": 2, "awq": 3}
# A replica that holds fewer sequences than this wastes the weights that it reads.
_ROOM = 8


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to serve the model.

    Attributes:
        refused: why it cannot run, or empty; the figures are then 0.
        note: what to know of it.
        sequences: that fit at once.
        alone: tokens per second of a single sequence.
        throughput: output tokens per second when full.
    """

    method: str
    title: str
    refused: str = ""
    note: str = ""
    weights: int = 0
    kv: int = 0
    sequences: int = 0
    alone: float = 0.0
    throughput: float = 0.0


def methods_on(model: Model, gpu: Gpu) -> dict[str, str]:
    """The methods that vLLM runs on ``gpu``, each with what to know of it."""
    found = {}
    for method in METHODS:
        refused, note = _judged(model, gpu, method)
        if not refused:
            found[method] = note
    return found


def _judged(model: Model, gpu: Gpu, method: str) -> tuple[str, str]:
    """Why not, and what to know, by the checks of a start."""
    checkpoint = model.checkpoint
    if method == "int8" and gpu.tops8 is None:
        # docs.vllm.ai, features/quantization/int8: not on compute capability 10.0 and up.
        return f"vLLM has no INT8 kernels for {gpu.title}: use fp8", ""
    wanted = method
    made = ""
    if method in _MADE_BY:
        family, name = _MADE_BY[method]
        wanted = "auto" if method == "int8" else "awq"
        checkpoint = replace(checkpoint, family=family, method=name)
        made = (
            f"MODEL_NAME has to be an {name.upper()} checkpoint: llm-gateway model quantize "
            "makes one"
        )
    try:
        decided = preflight(wanted, checkpoint, gpu.hardware())
    except EngineStartError as error:
        return str(error), ""
    return "", "; ".join(part for part in (made, decided.note) if part)


def choices(
    model: Model,
    gpu: Gpu,
    serving: Serving,
    traffic: Traffic,
    efficiency: Efficiency | None = None,
) -> list[Choice]:
    """Every method on ``gpu``, or the checkpoint's own when it is quantised already."""
    if model.checkpoint.family != "none":
        try:
            decided = preflight("auto", model.checkpoint, gpu.hardware())
        except EngineStartError as error:
            return [Choice("auto", model.checkpoint.method, refused=str(error))]
        return [_measured(model, gpu, serving, traffic, "auto", decided.note, efficiency)]
    found = []
    for method in METHODS:
        refused, note = _judged(model, gpu, method)
        if refused:
            found.append(Choice(method, _TITLES[method], refused=refused))
        else:
            found.append(_measured(model, gpu, serving, traffic, method, note, efficiency))
    return found


def _measured(
    model: Model,
    gpu: Gpu,
    serving: Serving,
    traffic: Traffic,
    method: str,
    note: str,
    efficiency: Efficiency | None,
) -> Choice:
    under = replace(serving, quantization=method)
    room = budget(model, gpu, under)
    longest = traffic.longest
    title = _TITLES.get(method, model.checkpoint.method)
    if room.longest < longest:
        needed = room.layout.blocks(longest) * room.layout.block_bytes
        refused = (
            f"does not fit: {gib(room.weights)} weights leave {gib(max(0, room.kv))} of "
            f"{gib(room.usable)} for KV, and a sequence of {longest} tokens needs {gib(needed)}"
        )
        return Choice(method, title, refused=refused, weights=room.weights)
    step = GpuStep(model, gpu, under, efficiency)
    context = traffic.prompt.mean + traffic.output.mean / 2
    return Choice(
        method,
        title,
        note=note,
        weights=room.weights,
        kv=room.kv,
        sequences=room.sequences(round(traffic.prompt.mean + traffic.output.mean)),
        alone=1 / step(Work(1, context, context)),
        throughput=full_speed(system(room, step, under), traffic),
    )


def system(room: Budget, step: GpuStep, serving: Serving) -> System:
    """The replica that ``decide`` plans with."""

    def why(work: Work) -> str:
        reading, multiplying = step.bounds(work)
        if reading >= multiplying:
            size = reading * step.bandwidth
            return (
                f"reading {gib(size)} of weights and KV takes {reading * 1000:.3g} ms at "
                f"{step.bandwidth / 1e9:.0f} GB/s (memory bandwidth is the bound: fewer bits per "
                "weight, more GPUs per replica, or a GPU with more bandwidth)"
            )
        return (
            f"multiplying takes {multiplying * 1000:.4g} ms at {step.peak / 1e12:.0f} TFLOPS "
            "(compute is the bound: shorter prompts, more GPUs per replica, fp8 on a GPU with "
            "FP8 units, or a faster GPU)"
        )

    return System(step, room.layout, room.blocks, serving.max_num_seqs, serving.batched_tokens, why)


def recommend(found: list[Choice], model: Model, gpu: Gpu) -> tuple[Choice, str]:
    """The choice to take and the reason, as a sentence. Raises CapacityError if none runs.

    FP8 with FP8 units costs almost no quality and halves what is read and computed, so it is
    taken where there are. Otherwise the method with the least loss that leaves room for enough
    sequences; and if none does, the one with the most room.
    """
    running = [choice for choice in found if not choice.refused]
    if not running:
        reasons = "; ".join(f"{choice.title}: {choice.refused}" for choice in found)
        raise CapacityError(f"{model.source} cannot be served on one {gpu.title}: {reasons}")
    if model.checkpoint.family != "none":
        return running[0], f"the checkpoint is quantised already ({model.checkpoint.method})"
    by_method = {choice.method: choice for choice in running}
    plain, fp8 = by_method.get("none"), by_method.get("fp8")
    if fp8 and gpu.tflops8 is not None:
        faster = (
            f" and {fp8.throughput / plain.throughput:.1f} times the throughput" if plain else ""
        )
        return fp8, (
            f"{gpu.title} multiplies in FP8 itself (compute capability "
            f"{gpu.capability[0]}.{gpu.capability[1]}): half the weights{faster} for very little "
            "quality, and no calibration is needed"
        )
    ample = [choice for choice in running if choice.sequences >= _ROOM]
    if not ample:
        best = max(running, key=lambda choice: choice.sequences)
        return best, f"only {best.sequences} sequences fit even so, more than with the others"
    best = min(ample, key=lambda choice: _BY_QUALITY[choice.method])
    if best.method == "none":
        quicker = max(ample, key=lambda choice: choice.throughput)
        aside = (
            f"; {quicker.title} would give {quicker.throughput / best.throughput:.1f} times the "
            "throughput where its loss of quality is acceptable"
            if quicker.throughput > 1.2 * best.throughput
            else ""
        )
        return best, (
            f"16 bits fit with room for {best.sequences} sequences, and {gpu.title} has no FP8 "
            f"units{aside}"
        )
    return best, (
        f"it is the method with the least loss of quality that leaves room for {_ROOM} sequences "
        f"or more ({best.sequences})"
    )
