"""Which variant of a model the ONNX engine should run on this CPU."""

from __future__ import annotations

from engine.capacity import CapacityError, DoesNotFit
from engine.capacity.advise import Choice
from engine.capacity.calibrate import Calibration
from engine.capacity.cpu import NODES, CpuStep, system, weight_bytes
from engine.capacity.decide import full_speed
from engine.capacity.model import Model
from engine.capacity.roofline import Work
from engine.capacity.traffic import Traffic

_CLEARLY = 1.15
_TITLES = {
    "int8": "int8 (one scale per token)",
    "int4": "int4 (blocks of 32)",
    "fp32": "fp32",
}
_NOTES = {
    "int8": "exact integer products: a request's result does not depend on its batch mates",
    "int4": "the least memory and the quickest for one stream of a larger model; more quality lost",
    "fp32": "no loss",
}


def choices(
    model: Model, calibration: Calibration, memory: int, seats: int, traffic: Traffic
) -> list[Choice]:
    """Every variant, measured against ``memory`` bytes of RAM. Raises CapacityError where the
    engine does not cover the model."""
    found = []
    for precision in NODES:
        size = weight_bytes(model.weights, precision)
        try:
            replica = system(model, precision, calibration, memory, seats, traffic.longest)
        except DoesNotFit as error:
            found.append(Choice(precision, _TITLES[precision], refused=str(error), weights=size))
            continue
        step = CpuStep(model, precision, calibration)
        context = traffic.prompt.mean + traffic.output.mean / 2
        mean = round(traffic.prompt.mean + traffic.output.mean)
        found.append(
            Choice(
                precision,
                _TITLES[precision],
                note=_NOTES[precision],
                weights=size,
                kv=replica.blocks * replica.layout.block_bytes,
                sequences=min(seats, replica.blocks // replica.layout.blocks(mean)),
                alone=1 / step(Work(1, context, context)),
                throughput=full_speed(replica, traffic),
            )
        )
    return found


def recommend(found: list[Choice], streams: int) -> tuple[Choice, str]:
    """int8 unless a single stream is clearly quicker with int4. Raises CapacityError if nothing
    fits."""
    running = {choice.method: choice for choice in found if not choice.refused}
    if not running:
        raise CapacityError("; ".join(choice.refused for choice in found))
    eight, four, whole = (running.get(name) for name in ("int8", "int4", "fp32"))
    if four is not None and eight is None:
        return four, "only 4 bits leave room for the KV of a sequence"
    if eight is None:
        choice = whole or next(iter(running.values()))
        return choice, "nothing else fits"
    if streams == 1 and four is not None and four.alone > _CLEARLY * eight.alone:
        return four, (
            f"one stream at a time is {four.alone / eight.alone:.1f} times as fast as with int8, "
            "since it reads half the bytes; check the quality with: llm-gateway model eval"
        )
    gain = f"{eight.throughput / whole.throughput:.1f} times fp32's throughput, " if whole else ""
    return eight, f"{gain}exact integer products, and results that do not depend on batch mates"
