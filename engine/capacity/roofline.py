"""How long a step takes: the slower of reading memory and multiplying.

The roofline model (Williams, Waterman, Patterson 2009): a step reads every weight and the KV
of its sequences, and multiplies each of its tokens with the weights that it meets. The
factors say what of a datasheet's peak is reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from engine.capacity.gpus import Gpu
from engine.capacity.kv import layout
from engine.capacity.memory import Serving
from engine.capacity.model import Model

# 16-bit activations are summed twice per layer over all GPUs of a replica.
_REDUCTIONS_PER_LAYER = 2


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What of the peaks is reached.

    Attributes:
        bandwidth: of memory. 0.8 and ``overhead`` together give the one measurement at hand:
            phi-2 in 16 bits on an L4 decodes 42.0 tok/s (background log, vLLM 0.5.4), 78 % of
            what bandwidth allows.
        compute: of dense tensor operations, in prefill. Assumed; 0.4 to 0.6 is usual.
        overhead: seconds per step for scheduling, launches and sampling. Assumed.
        reduction: seconds that starting one all-reduce takes. Assumed.
    """

    bandwidth: float = 0.8
    compute: float = 0.5
    overhead: float = 0.0005
    reduction: float = 10e-6


@dataclass(frozen=True, slots=True)
class Work:
    """What one step has to do.

    Attributes:
        decoding: sequences that get a token.
        context: tokens of all of them together.
        visible: the same, each cut at the window of sliding layers.
        prefill: prompt tokens computed beside them.
        prefill_pairs: for attention: the sum over those tokens of how many each looks back on.
    """

    decoding: int = 0
    context: float = 0.0
    visible: float = 0.0
    prefill: int = 0
    prefill_pairs: float = 0.0


class StepTime(Protocol):
    """Seconds that a step takes."""

    def __call__(self, work: Work) -> float: ...


class GpuStep:
    """Step times of one replica on ``serving.tensor_parallel`` GPUs."""

    def __init__(
        self, model: Model, gpu: Gpu, serving: Serving, efficiency: Efficiency | None = None
    ) -> None:
        method, parallel = model.method(serving.quantization), serving.tensor_parallel
        kv = layout(model.architecture, serving.kv_dtype, parallel)
        layers = model.architecture.layers
        self.efficiency = efficiency or Efficiency()
        self.weights = model.weights
        self.always, self.routed = model.weights.read_parts(method, parallel)
        self.full_kv, self.state_kv = kv.full_bytes_per_token, kv.state_bytes
        self.sliding_kv = kv.bytes_per_token - kv.full_bytes_per_token
        self.operations = 2.0 * model.weights.multiplied / parallel
        self.pair_operations = 2.0 * model.architecture.attention_width / parallel
        self.full_layers = sum(layer.kind in ("full", "mla") for layer in layers)
        self.sliding_layers = sum(layer.kind == "sliding" for layer in layers)
        self.window = model.architecture.window or 0
        self.bandwidth = gpu.bandwidth * self.efficiency.bandwidth
        self.peak = peak_of(gpu, method) * self.efficiency.compute
        # Attention is computed in 16 bits whatever the weights are in.
        self.peak16 = gpu.tflops16 * 1e12 * self.efficiency.compute
        self.parallel, self.link = parallel, gpu.link
        self.row_bytes = model.architecture.hidden * model.architecture.dtype_bytes
        self.reductions = len(layers) * _REDUCTIONS_PER_LAYER

    def __call__(self, work: Work) -> float:
        """Seconds of one step."""
        memory, compute = self.bounds(work)
        return max(memory, compute) + self.communication(work) + self.efficiency.overhead

    def bounds(self, work: Work) -> tuple[float, float]:
        """Seconds for reading and seconds for multiplying, efficiency included."""
        rows = work.decoding + work.prefill
        if not rows:
            return 0.0, 0.0
        read = self.always + self.routed * self.weights.experts_hit(rows)
        read += self.full_kv * work.context + self.sliding_kv * work.visible
        read += self.state_kv * work.decoding
        pairs = self.full_layers * (work.context + work.prefill_pairs)
        seen = min(work.prefill_pairs, work.prefill * self.window)
        pairs += self.sliding_layers * (work.visible + seen)
        compute = self.operations * rows / self.peak + self.pair_operations * pairs / self.peak16
        return read / self.bandwidth, compute

    def communication(self, work: Work) -> float:
        """Ring all-reduce: 2 (n - 1) / n of the bytes cross each link."""
        n = self.parallel
        if n == 1:
            return 0.0
        size = (work.decoding + work.prefill) * self.row_bytes
        one = 2 * (n - 1) / n * size / self.link + self.efficiency.reduction
        return self.reductions * one


def peak_of(gpu: Gpu, method: str) -> float:
    """Dense operations per second of the products with weights: weight-only methods, and FP8
    without FP8 units, multiply in 16 bits."""
    eight = {"fp8": gpu.tflops8, "int8": gpu.tops8}.get(method)
    return (eight or gpu.tflops16) * 1e12
