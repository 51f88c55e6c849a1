"""Which machine types carry which accelerators. The SDK and the API's clients do not check it.

Pairs as of Vertex AI's page on compute resources for prediction and Compute Engine's on GPU
machine types, both of 2026-11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CPU_ONLY = re.compile(r"^(e2|n1|n2|n2d|c2|c2d|c3)-(standard|highmem|highcpu)-\d{1,3}$")
_T4_COUNTS = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class Carrier:
    """What a machine type carries.

    Attributes:
        accelerator: name of ``AcceleratorType``.
        count: accelerators per machine.
        gpu: the name that prices have for it.
        on_demand: whether it is sold other than as Spot or Flex-start.
    """

    accelerator: str
    count: int
    gpu: str
    on_demand: bool = True


def _carriers() -> dict[str, Carrier]:
    found: dict[str, Carrier] = {}
    for cores, count in {4: 1, 8: 1, 12: 1, 16: 1, 32: 1, 24: 2, 48: 4, 96: 8}.items():
        found[f"g2-standard-{cores}"] = Carrier("NVIDIA_L4", count, "l4")
    for count in (1, 2, 4, 8):
        found[f"a2-highgpu-{count}g"] = Carrier("NVIDIA_TESLA_A100", count, "a100-40")
        found[f"a2-ultragpu-{count}g"] = Carrier("NVIDIA_A100_80GB", count, "a100-80")
        found[f"a3-highgpu-{count}g"] = Carrier("NVIDIA_H100_80GB", count, "h100", count == 8)
    found["a2-megagpu-16g"] = Carrier("NVIDIA_TESLA_A100", 16, "a100-40")
    found["a3-megagpu-8g"] = Carrier("NVIDIA_H100_MEGA_80GB", 8, "h100")
    found["a3-ultragpu-8g"] = Carrier("NVIDIA_H200_141GB", 8, "h200")
    return found


CARRIERS = _carriers()
ACCELERATORS = tuple(sorted({c.accelerator for c in CARRIERS.values()} | {"NVIDIA_TESLA_T4"}))


def check_pair(machine: str, accelerator: str | None, count: int | None) -> None:
    """Raises ValueError, with the machine types or the count that would do."""
    if accelerator is None:
        if machine in CARRIERS:
            fix = CARRIERS[machine]
            raise ValueError(
                f"{machine} carries {fix.count} x {fix.accelerator}: set accelerator: "
                f"{fix.accelerator} and count: {fix.count}"
            )
        if not _CPU_ONLY.match(machine):
            raise ValueError(
                f"{machine} is no machine type known here: take one such as g2-standard-12, "
                "a3-highgpu-8g or, without a GPU, n2-standard-8"
            )
        return
    if accelerator == "NVIDIA_TESLA_T4":
        if not machine.startswith("n1-") or not _CPU_ONLY.match(machine):
            raise ValueError(f"NVIDIA_TESLA_T4 goes with n1-* machines, not with {machine}")
        if count not in _T4_COUNTS:
            raise ValueError("NVIDIA_TESLA_T4 comes in counts of 1, 2 or 4")
        return
    carrier = CARRIERS.get(machine)
    if carrier is None or carrier.accelerator != accelerator:
        fitting = ", ".join(m for m, c in CARRIERS.items() if c.accelerator == accelerator)
        raise ValueError(f"{machine} does not carry {accelerator}: take one of {fitting}")
    if count != carrier.count:
        raise ValueError(f"{machine} carries {carrier.count} x {accelerator}: set count to that")


def is_spot_only(machine: str) -> bool:
    """Whether the type is sold as Spot or Flex-start alone."""
    return machine in CARRIERS and not CARRIERS[machine].on_demand


def price_name(machine: str, accelerator: str | None) -> str:
    """The name under which prices know the machine's GPU; ``cpu`` without one."""
    if machine in CARRIERS:
        return CARRIERS[machine].gpu
    return "t4" if accelerator else "cpu"
