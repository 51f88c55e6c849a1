"""What the planner knows of GPUs: NVIDIA's datasheets, and memory as CUDA reports it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.capacity import CapacityError
from engine.vllm.hardware import Hardware

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU type.

    Attributes:
        name: as ``--gpu`` takes it.
        title: as people call it.
        memory: bytes that CUDA offers a process (``torch.cuda.mem_get_info``'s total), which
            is less than the label: ECC and the driver keep some. Drivers differ by up to 0.5 GiB.
        bandwidth: bytes per second between memory and chip.
        tflops16: dense FP16/BF16 tensor operations with float32 sums, in 1e12 per second.
        tflops8: the same for FP8; None where the chip has no FP8 units.
        tops8: the same for INT8; None where vLLM has no INT8 kernels for the chip.
        capability: CUDA compute capability.
        link: bytes per second and direction between GPUs of one machine.
    """

    name: str
    title: str
    memory: int
    bandwidth: float
    tflops16: float
    tflops8: float | None
    tops8: float | None
    capability: tuple[int, int]
    link: float

    def hardware(self, count: int = 1) -> Hardware:
        """The same for the checks of ``engine.vllm``."""
        return Hardware(
            "cuda", self.title, self.capability, count, memory=self.memory, free=self.memory
        )

    @property
    def bfloat16(self) -> bool:
        """Whether vLLM runs bfloat16 on it; older ones need DTYPE=float16."""
        return self.capability >= (8, 0)


def _gpu(
    name: str,
    title: str,
    gib: float,
    gigabytes_per_s: float,
    tflops: tuple[float, float | None, float | None],
    capability: tuple[int, int],
    link: float,
) -> Gpu:
    return Gpu(name, title, int(gib * GIB), gigabytes_per_s * 1e9, *tflops, capability, link * 1e9)


# (FP16, FP8, INT8) dense, that is half of what datasheets print "with sparsity". Links: PCIe 3
# and 4 x16, or NVLink's rate of one direction. Memory: totals in PyTorch's out-of-memory
# messages (background log for the L4; public vLLM and PyTorch issues for the others).
# INT8 of the B200 is left out: vLLM's INT8 kernels end at compute capability 9.0.
GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("t4", "NVIDIA T4", 14.56, 300, (65, None, 130), (7, 5), 16),
        _gpu("l4", "NVIDIA L4", 22.03, 300, (121, 242, 242), (8, 9), 32),
        _gpu("a10g", "NVIDIA A10G", 21.98, 600, (70, None, 140), (8, 6), 32),
        _gpu("a100-40", "NVIDIA A100 40 GB", 39.38, 1555, (312, None, 624), (8, 0), 300),
        _gpu("a100-80", "NVIDIA A100 80 GB", 79.15, 2039, (312, None, 624), (8, 0), 300),
        _gpu("l40s", "NVIDIA L40S", 44.40, 864, (362, 733, 733), (8, 9), 32),
        _gpu("h100", "NVIDIA H100 80 GB SXM", 79.11, 3350, (989, 1979, 1979), (9, 0), 450),
        _gpu("h200", "NVIDIA H200", 139.7, 4800, (989, 1979, 1979), (9, 0), 450),
        _gpu("b200", "NVIDIA B200", 178.0, 8000, (2250, 4500, None), (10, 0), 900),
    )
}
_ALIASES = {
    "a100": "a100-80",
    "a100-40gb": "a100-40",
    "a100-80gb": "a100-80",
    "tesla-t4": "t4",
    "h100-80": "h100",
    "h100-80gb": "h100",
}


def find_gpu(name: str) -> Gpu:
    """The GPU called ``name``, in any spelling. Raises CapacityError listing the known ones."""
    wanted = name.lower().replace("_", "-").replace(" ", "-").removeprefix("nvidia-")
    wanted = _ALIASES.get(wanted, wanted)
    if wanted not in GPUS:
        raise CapacityError(
            f"no GPU is known as {name}: take one of {', '.join(GPUS)}, or cpu for the ONNX engine"
        )
    return GPUS[wanted]
