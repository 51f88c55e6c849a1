"""Whether a model fits, and what would make it."""

from __future__ import annotations

from dataclasses import replace

from engine.capacity import CapacityError, DoesNotFit
from engine.capacity.advise import methods_on
from engine.capacity.gpus import GPUS, Gpu
from engine.capacity.memory import Budget, Serving, budget, gib
from engine.capacity.model import Model
from engine.vllm.preflight import FP8_NATIVE


def check(model: Model, gpu: Gpu, serving: Serving, tokens: int) -> Budget:
    """The budget, if one sequence of ``tokens`` fits. Raises DoesNotFit that says by how
    much it does not, and what would."""
    found = budget(model, gpu, serving)
    if found.kv <= 0 or found.longest < tokens:
        short = max(-found.kv, 0) + found.layout.blocks(tokens) * found.layout.block_bytes
        short -= max(found.kv, 0)
        raise DoesNotFit(
            f"{model.source} does not fit on {_count(serving)}{gpu.title}: "
            f"{gib(found.usable)} usable, less {gib(found.weights)} weights and "
            f"{gib(found.overhead)} overhead, leaves {gib(found.kv)} for KV, and one sequence of "
            f"{tokens} tokens needs {gib(found.layout.blocks(tokens) * found.layout.block_bytes)}: "
            f"{gib(short)} too little per GPU. {_remedies(model, gpu, serving, tokens)}"
        )
    return found


def _remedies(model: Model, gpu: Gpu, serving: Serving, tokens: int) -> str:
    """The nearest changes under which it fits, as a sentence."""

    def fits(on: Gpu, under: Serving) -> bool:
        try:
            return budget(model, on, under).longest >= tokens
        except CapacityError:
            return False

    found = []
    if model.checkpoint.family == "none":
        runs = methods_on(model, gpu)
        smaller = [m for m in ("fp8", "int8", "awq") if m in runs]
        fitting = [m for m in smaller if fits(gpu, replace(serving, quantization=m))]
        found += [f"--quantization {method}" for method in fitting]
    smaller_kv = replace(serving, kv_dtype="fp8")
    native = gpu.capability >= FP8_NATIVE
    if native and smaller_kv != serving and fits(gpu, smaller_kv):
        found.append("--kv-dtype fp8")
    wider = [n for n in (2, 4, 8) if n > serving.tensor_parallel]
    if many := next((n for n in wider if fits(gpu, replace(serving, tensor_parallel=n))), None):
        found.append(f"--tensor-parallel {many}")
    if larger := [g.name for g in GPUS.values() if g.memory > gpu.memory and fits(g, serving)]:
        found.append(f"--gpu {larger[0]}")
    longest = budget(model, gpu, serving).longest
    if longest >= 16:
        found.append(f"sequences of {longest} tokens or less (--max-model-len)")
    return f"It would with {', or '.join(found)}." if found else "No single change would do."


def _count(serving: Serving) -> str:
    return "" if serving.tensor_parallel == 1 else f"{serving.tensor_parallel} x "
