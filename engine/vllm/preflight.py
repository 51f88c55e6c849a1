"""Quantisation x checkpoint x hardware, judged before anything is loaded.

Pure functions: what vLLM would only find out in the middle of loading, or in the first
forward pass, is refused here in one sentence that says why and what will work. Limits by
compute capability are vLLM's own (``get_min_capability`` of its quantisation schemes).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.base import EngineStartError
from engine.vllm.checkpoint import Checkpoint
from engine.vllm.hardware import Hardware

FP8_NATIVE = (8, 9)
FP8_WEIGHT_ONLY = (7, 5)
AWQ_MINIMUM = (7, 5)
INT8_MINIMUM = (7, 5)
_SERVE_UNQUANTISED = "an unquantised checkpoint of the model (QUANTIZATION=none)"
_OLD_NAMES = {"auto_awq": "awq", "awq_marlin": "awq", "compressed_tensors": "compressed-tensors"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to tell vLLM, and how it will run.

    Attributes:
        quantization: vLLM's ``quantization`` argument; None leaves it to the checkpoint.
        label: for people: ``fp8 (online)``.
        half_precision: whether float32 activations are impossible.
        note: something worth a log line, or empty.
    """

    quantization: str | None
    label: str
    half_precision: bool = False
    note: str = ""


def plan(
    wanted: str,
    checkpoint: Checkpoint,
    hardware: Hardware,
    online_fp8: str = "fp8_per_tensor",
    methods: Sequence[str] = (),
) -> Plan:
    """Decide what ``QUANTIZATION=wanted`` means here.

    Args:
        online_fp8: the installed vLLM's name for fp8 of an unquantised checkpoint.
        methods: the names that the installed vLLM takes; empty skips that check.

    Raises EngineStartError where it cannot work.
    """
    family, method = checkpoint.family, checkpoint.method
    wanted = wanted.lower()
    if wanted == "auto":
        return _as_checkpoint(checkpoint, hardware)
    if wanted == "none":
        if family != "none":
            raise EngineStartError(
                f"QUANTIZATION=none, but the weights of {checkpoint.source} are quantised "
                f"({method}): set QUANTIZATION=auto or serve an unquantised checkpoint"
            )
        return Plan(None, "none")
    if wanted == "fp8":
        if family in ("fp8", "fp8_block"):
            return _as_checkpoint(checkpoint, hardware)
        if family == "none":
            return _online_fp8(hardware, online_fp8)
        raise EngineStartError(
            f"QUANTIZATION=fp8, but the weights of {checkpoint.source} are quantised already "
            f"({method}): set QUANTIZATION=auto to serve them as they are, or serve an "
            "unquantised or fp8 checkpoint"
        )
    if _OLD_NAMES.get(wanted, wanted) == "awq":
        if family != "w4a16":
            raise EngineStartError(
                f"QUANTIZATION=awq needs weights that were quantised with AWQ, and those of "
                f"{checkpoint.source} are {_described(checkpoint)}: serve an AWQ checkpoint "
                "(AutoAWQ, or llm-compressor's W4A16) or set QUANTIZATION=auto"
            )
        return _as_checkpoint(checkpoint, hardware)
    if methods and wanted not in methods:
        raise EngineStartError(
            f"QUANTIZATION={wanted} is not a name that this vLLM knows: use auto, none, fp8, "
            f"awq, or one of {', '.join(sorted(methods))}"
        )
    return Plan(_OLD_NAMES.get(wanted, wanted), wanted)


def _as_checkpoint(checkpoint: Checkpoint, hardware: Hardware) -> Plan:
    family, method = checkpoint.family, checkpoint.method
    if family == "w4a16":
        _check_awq(hardware, checkpoint)
    elif family in ("fp8", "fp8_block"):
        return _fp8_checkpoint(checkpoint, hardware)
    elif family == "int8" and hardware.kind == "cuda":
        _need(hardware, INT8_MINIMUM, f"INT8 weights ({checkpoint.source})", _SERVE_UNQUANTISED)
    # vLLM's 4-bit kernels multiply in 16 bits; on CPUs the first forward pass would fail.
    return Plan(None, method, half_precision=family == "w4a16")


def _check_awq(hardware: Hardware, checkpoint: Checkpoint) -> None:
    what = f"4-bit weights ({checkpoint.method} in {checkpoint.source})"
    if hardware.kind == "cuda":
        _need(hardware, AWQ_MINIMUM, what, _SERVE_UNQUANTISED)
    if hardware.kind == "cpu" and not hardware.avx512:
        # They load, and the first forward pass ends the engine: no cpu_gemm_wna16.
        raise EngineStartError(
            f"vLLM's CPU kernels for {what} need AVX-512, and this CPU has "
            f"{hardware.instruction_set}: serve an INT8 (W8A8) checkpoint or "
            f"{_SERVE_UNQUANTISED}"
        )


def _fp8_checkpoint(checkpoint: Checkpoint, hardware: Hardware) -> Plan:
    label = f"fp8 ({checkpoint.method})"
    if hardware.kind == "cuda":
        _need(hardware, FP8_WEIGHT_ONLY, f"fp8 weights ({checkpoint.source})", _SERVE_UNQUANTISED)
        return Plan(None, label, note=_weight_only(hardware))
    if hardware.kind == "cpu":
        if checkpoint.family == "fp8_block" and not hardware.amx:
            raise EngineStartError(
                f"vLLM's CPU kernels for block-wise fp8 ({checkpoint.source}) need AMX, and "
                f"this CPU has {hardware.instruction_set}: serve an fp8 checkpoint with one "
                f"scale per tensor or channel, an INT8 (W8A8) checkpoint, or {_SERVE_UNQUANTISED}"
            )
        return Plan(None, label, note="fp8 is emulated on this CPU; INT8 (W8A8) is faster")
    return Plan(None, label)


def _online_fp8(hardware: Hardware, name: str) -> Plan:
    if hardware.kind == "cuda":
        _need(hardware, FP8_WEIGHT_ONLY, "QUANTIZATION=fp8", "QUANTIZATION=none")
        return Plan(name, "fp8 (online)", half_precision=True, note=_weight_only(hardware))
    if hardware.kind == "cpu":
        # Seen with vLLM 0.32 on AVX2 and on AVX-512: static_scaled_fp8_quant is missing.
        raise EngineStartError(
            "QUANTIZATION=fp8 on an unquantised checkpoint needs a GPU, because vLLM has no "
            f"CPU kernel that quantises to fp8 while loading ({hardware.instruction_set} "
            "here): serve an fp8 or an INT8 (W8A8) checkpoint, or set QUANTIZATION=none"
        )
    return Plan(name, "fp8 (online)", half_precision=True)


def _weight_only(hardware: Hardware) -> str:
    if hardware.capability is None or hardware.capability >= FP8_NATIVE:
        return ""
    return (
        f"{hardware.name} has no fp8 units (compute capability {_dotted(hardware.capability)}, "
        "8.9 is needed): weights are kept in fp8 and multiplied in 16 bits"
    )


def _need(hardware: Hardware, least: tuple[int, int], what: str, instead: str) -> None:
    if hardware.capability is not None and hardware.capability < least:
        raise EngineStartError(
            f"{what} needs compute capability {_dotted(least)} or more, and {hardware.name} has "
            f"{_dotted(hardware.capability)}: use {instead} or a newer GPU"
        )


def _described(checkpoint: Checkpoint) -> str:
    return "not quantised" if checkpoint.family == "none" else f"quantised with {checkpoint.method}"


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
