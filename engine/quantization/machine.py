"""What a measurement depends on besides the model: processor, cores, memory, versions."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from engine.onnx.hardware import physical_cores

_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8")


def describe() -> dict[str, Any]:
    """For the JSON beside the results; the load is that of the minute before."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    fields: dict[str, str] = {}
    for line in lines:
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = fields.get("flags", "").split()
    return {
        "cpu": fields.get("model name") or platform.machine(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "physical_cores": physical_cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "load_average": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "onnxruntime": metadata.version("onnxruntime"),
    }
