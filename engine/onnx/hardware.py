"""What of the machine this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def physical_cores() -> int:
    """Cores that this process may run on, hyper-threads and CPU quota taken into account."""
    allowed = os.sched_getaffinity(0)
    cores = {_core_of(block, cpu) for block in _cpu_blocks() if (cpu := _cpu(block)) in allowed}
    count = len(cores) or len(allowed)
    quota = _cpu_quota()
    return max(1, count if quota is None else min(count, int(quota)))


def available_memory() -> int | None:
    """Bytes that this process may still take, or None where the system does not say."""
    lines = (line.split() for line in _read(_MEMINFO).splitlines())
    bounds = [int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:"]
    limit = _read(_CGROUP / "memory.max").strip()
    used = _read(_CGROUP / "memory.current").strip()
    if limit.isdigit() and used.isdigit():
        bounds.append(max(0, int(limit) - int(used)))
    return min(bounds) if bounds else None


def _cpu_blocks() -> list[dict[str, str]]:
    blocks = []
    for text in _read(_CPUINFO).split("\n\n"):
        pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
        blocks.append({key.strip(): value.strip() for key, value in pairs})
    return blocks


def _cpu(block: dict[str, str]) -> int:
    return int(block.get("processor", -1))


def _core_of(block: dict[str, str], cpu: int) -> tuple[str, str]:
    return block.get("physical id", ""), block.get("core id", f"cpu {cpu}")


def _cpu_quota() -> float | None:
    quota, _, period = _read(_CGROUP / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
