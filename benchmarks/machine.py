"""What a result depends on besides the programs: processor, memory, load, versions."""

from __future__ import annotations

import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any

_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_PACKAGES = ("onnxruntime", "onnxruntime-genai", "torch", "transformers", "numpy")


def cpu_field(name: str) -> str:
    """First value of a field of /proc/cpuinfo, or an empty string."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def cpu_flags() -> list[str]:
    """The instruction sets that decide which kernels run."""
    present = set(cpu_field("flags").split())
    return [flag for flag in _FLAGS if flag in present]


def physical_cores() -> int:
    """Distinct cores this process may run on."""
    usable = os.sched_getaffinity(0)
    cores = set()
    for cpu in usable:
        siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        cores.add(siblings.read_text().strip() if siblings.is_file() else str(cpu))
    return max(1, len(cores))


def describe() -> dict[str, Any]:
    """The machine as it goes into the JSON."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu_field("model name") or platform.processor() or platform.machine(),
        "cpu_family_model": f"{cpu_field('cpu family')}/{cpu_field('model')}",
        "cores": physical_cores(),
        "flags": cpu_flags(),
        "memory_gib": round(pages / 2**30, 1),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": versions,
    }


def load_average() -> float:
    """One-minute load average."""
    return round(os.getloadavg()[0], 2)


class OtherWork:
    """How much CPU programs other than the benchmark used while something was measured.

    A loaded machine does not slow every engine alike: those whose threads wait for each
    other at every operator lose most, so a result is worth little without this number.
    """

    def __init__(self) -> None:
        self.shares: list[float] = []
        self._at = (0.0, 0.0, 0.0)

    def start(self) -> None:
        """Begin a measurement."""
        self._at = self._now()

    def stop(self) -> None:
        """End it and note the share of all CPUs that went elsewhere."""
        wall, busy, ours = (b - a for a, b in zip(self._at, self._now(), strict=True))
        if wall > 0.05:
            share = (busy - ours) / (wall * (os.cpu_count() or 1))
            self.shares.append(round(min(1.0, max(0.0, share)), 3))

    def _now(self) -> tuple[float, float, float]:
        hertz = os.sysconf("SC_CLK_TCK")
        fields = [int(v) for v in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        idle = fields[3] + fields[4]
        return time.monotonic(), (sum(fields) - idle) / hertz, _own_ticks() / hertz


def _own_ticks() -> int:
    """CPU ticks of this process and all below it, finished children included."""
    parents: dict[int, int] = {}
    ticks: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid] = int(after_name[1])
        ticks[pid] = sum(int(value) for value in after_name[11:15])
    ours = {os.getpid()}
    grown = True
    while grown:
        below = {pid for pid, parent in parents.items() if parent in ours}
        grown = not below <= ours
        ours |= below
    return sum(ticks.get(pid, 0) for pid in ours)
