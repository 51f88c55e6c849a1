"""What vLLM will run on, as far as its choices depend on it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

# vLLM's CPU build carries one set of kernels per instruction set and picks by these flags.
_AVX512 = frozenset({"avx512f", "avx512bw", "avx512vl", "avx512dq"})


@dataclass(frozen=True, slots=True)
class Hardware:
    """Where the model will run.

    Attributes:
        kind: vLLM's platform: ``cuda``, ``rocm``, ``cpu``, or another.
        name: for messages.
        capability: lowest CUDA compute capability of the visible GPUs.
        count: visible GPUs; 1 on CPUs.
        memory: bytes of one GPU, or of RAM.
        free: bytes of it that are free now.
        flags: the CPU's instruction sets, as the kernel spells them.
    """

    kind: str
    name: str
    capability: tuple[int, int] | None = None
    count: int = 1
    memory: int = 0
    free: int = 0
    flags: frozenset[str] = frozenset()

    @property
    def avx512(self) -> bool:
        return self.flags >= _AVX512

    @property
    def amx(self) -> bool:
        return "amx_tile" in self.flags

    @property
    def instruction_set(self) -> str:
        if self.amx:
            return "AMX"
        return "AVX-512" if self.avx512 else "AVX2" if "avx2" in self.flags else "no AVX2"


def detect() -> Hardware:
    """Ask vLLM's platform; imports vLLM, touches no GPU context."""
    from vllm.platforms import current_platform as platform

    if platform.is_cpu():
        total, free = ram()
        return Hardware("cpu", "this CPU", memory=total, free=free, flags=cpu_flags())
    kind = "cuda" if platform.is_cuda() else "rocm" if platform.is_rocm() else "other"
    count = max(1, int(platform.device_count()))
    capability = None
    if kind == "cuda":
        found = [platform.get_device_capability(index) for index in range(count)]
        capability = min((one.major, one.minor) for one in found if one is not None)
    memory = int(platform.get_device_total_memory(0))
    return Hardware(
        kind,
        str(platform.get_device_name(0)),
        capability,
        count,
        memory,
        _free_gpu_memory(count) or memory,
    )


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Flags of the first CPU; empty where they cannot be read."""
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def ram(cgroup: Path = Path("/sys/fs/cgroup")) -> tuple[int, int]:
    """Total and free RAM in bytes, within the container's limit where there is one."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)}
    total, free = kib["MemTotal"] * 1024, kib["MemAvailable"] * 1024
    with contextlib.suppress(OSError, ValueError):
        limit = int((cgroup / "memory.max").read_text())
        used = int((cgroup / "memory.current").read_text())
        total, free = min(total, limit), max(0, min(free, limit - used))
    return total, free


def _free_gpu_memory(count: int) -> int | None:
    """Least free memory of the visible GPUs, in bytes, through NVML: no CUDA context."""
    try:
        from vllm.platforms import current_platform
        from vllm.utils.import_utils import import_pynvml

        nvml = import_pynvml()
        nvml.nvmlInit()
        try:
            physical = [current_platform.device_id_to_physical_device_id(i) for i in range(count)]
            handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in physical]
            return min(int(nvml.nvmlDeviceGetMemoryInfo(handle).free) for handle in handles)
        finally:
            nvml.nvmlShutdown()
    except Exception:
        # NVML is missing on some platforms; vLLM then judges by itself.
        return None
