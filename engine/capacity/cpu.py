"""The ONNX engine on a CPU: step times from a calibration, memory from the engine's own rules.

A step of the engine is one run over all decoding sequences, then chunks of prompts, each a run
of its own. A run costs its operators' starts, its products with the weights (a measured curve
over the rows, since a CPU moves from reading to multiplying gradually) and its attention.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from engine.capacity import CapacityError, DoesNotFit
from engine.capacity.calibrate import Calibration
from engine.capacity.decide import System
from engine.capacity.kv import layout
from engine.capacity.memory import gib
from engine.capacity.model import Model
from engine.capacity.roofline import Work
from engine.capacity.weights import Weights
from engine.models.find import FAMILIES

# Nodes of the engine's graphs: per layer, and the rest (counted in converted models).
NODES = {"int8": (42, 20), "int4": (11, 9), "fp32": (11, 9)}
# Bytes of a projection's weight: codes and scales (int4: one float32 per 32 weights).
WEIGHT_BYTES = {"int8": 1.0, "int4": 0.5 + 4 / 32, "fp32": 4.0}
# Scheduler, sampler, text and streams: 0.3 ms of a step with one stream and 1.1 ms with 16
# (docs/benchmarks.md, "What bounds the speed").
STEP_PYTHON = 0.00025
ROW_PYTHON = 0.00005
SEATS = 16
PREFILL_CHUNK = 512
KV_SHARE = 0.6  # of the memory that the weights leave, as engine.onnx.kv_budget


@dataclass(frozen=True, slots=True)
class CpuStep:
    """Seconds of the engine's steps. ``precision``: int8, int4 or fp32."""

    model: Model
    precision: str
    calibration: Calibration

    def __call__(self, work: Work) -> float:
        total = STEP_PYTHON + ROW_PYTHON * work.decoding
        if work.decoding:
            one = self.calibration.attend["one"]
            total += self.run(work.decoding) + self.attention(work.context) * one
        if work.prefill:
            # The part above the diagonal is multiplied too.
            whole = work.prefill_pairs + work.prefill * (work.prefill - 1) / 2
            many = self.calibration.attend["many"]
            total += self.run(work.prefill) + self.attention(whole) * many
        return total

    def run(self, rows: int) -> float:
        """A model run without its attention."""
        per_layer, rest = NODES[self.precision]
        nodes = per_layer * len(self.model.architecture.layers) + rest
        weights = self.model.weights.multiplied
        return nodes * self.calibration.operator + weights * self.per_weight(rows)

    def per_weight(self, rows: int) -> float:
        """Seconds per weight, between the measured numbers of rows on a straight line."""
        curve = self.calibration.cache[self.precision]
        if not self.in_cache:
            memory = self.calibration.memory[self.precision]
            slowest = memory[max(memory)]
            curve = {r: memory.get(r, max(s, slowest)) for r, s in curve.items()}
        points = sorted(curve.items())
        if rows >= points[-1][0]:
            return points[-1][1] * rows / points[-1][0]
        for (left, low), (right, high) in pairwise(points):
            if rows <= right:
                return low + (high - low) * max(0, rows - left) / (right - left)
        return points[0][1]

    @property
    def in_cache(self) -> bool:
        """Whether the weights stay in the processor between steps: they may take half of it."""
        size = self.model.weights.multiplied * WEIGHT_BYTES[self.precision]
        return size <= self.calibration.cache_bytes / 2

    def attention(self, pairs: float) -> float:
        """Scores times a head's width, over all heads and layers."""
        shape = self.model.architecture
        return len(shape.layers) * shape.attention_width / 2 * pairs


def weight_bytes(weights: Weights, precision: str) -> int:
    """The model file's size: quantised projections and head, and the token table in 16 bits
    (32 in fp32)."""
    table = sum(t.elements for t in weights.tensors if t.role == "embedding")
    other = sum(t.elements for t in weights.tensors if t.role == "other")
    size = weights.multiplied * WEIGHT_BYTES[precision] + 4 * other
    if precision == "fp32" and weights.tied:
        return round(size)
    return round(size + table * (4 if precision == "fp32" else 2))


def system(
    model: Model, precision: str, calibration: Calibration, memory: int, seats: int, longest: int
) -> System:
    """A replica with ``memory`` bytes of RAM. Raises CapacityError where the engine does not
    cover the model, or it does not fit."""
    if precision not in NODES:
        raise CapacityError(
            f"--quantization {precision} is nothing for a CPU: take auto (int8), int8, int4 or fp32"
        )
    if model.architecture.name not in FAMILIES:
        raise CapacityError(
            f"the ONNX engine does not cover {model.architecture.name}: plan for a GPU, or a model "
            f"of {', '.join(FAMILIES)}"
        )
    if model.checkpoint.family != "none":
        raise CapacityError(
            f"{model.source} is quantised already ({model.checkpoint.method}), which the ONNX "
            "engine cannot read: take the unquantised checkpoint"
        )
    kv = layout(model.architecture, "float32")
    weights = weight_bytes(model.weights, precision)
    left = int((memory - weights) * KV_SHARE)
    blocks = max(0, left // kv.block_bytes)
    if blocks < kv.blocks(longest):
        needed = weights + kv.blocks(longest) * kv.block_bytes / KV_SHARE
        raise DoesNotFit(
            f"{model.source} as {precision} does not fit in {gib(memory)} of RAM: the weights take "
            f"{gib(weights)} and a sequence of {longest} tokens {gib(kv.sequence_bytes(longest))} "
            f"of KV, for which the engine leaves {KV_SHARE:.0%} of the rest: "
            f"{gib(needed - memory)} too little. More memory, --quantization int4, or shorter "
            "sequences would do"
        )
    step = CpuStep(model, precision, calibration)

    def why(work: Work) -> str:
        rows = max(work.decoding, work.prefill)
        seconds = step.run(rows)
        if work.prefill:
            rate = 2 * model.weights.multiplied * rows / seconds / 1e9
            return (
                f"its products run at {rate:.0f} GOPS on {calibration.threads} threads (compute is "
                "the bound: shorter prompts, more cores or a smaller model)"
            )
        size = model.weights.multiplied * WEIGHT_BYTES[precision]
        return (
            f"a step goes through {size / 1e6:.0f} MB of weights in {seconds * 1000:.3g} ms with "
            f"memory that gives {calibration.bandwidth / 1e9:.0f} GB/s (memory bandwidth and "
            "operator starts are the bound: int4, a smaller model, or a faster CPU)"
        )

    return System(step, kv, blocks, seats, PREFILL_CHUNK + seats, why)
