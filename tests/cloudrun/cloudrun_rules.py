"""What Cloud Run refuses, as far as its documentation says so.

Written from the reference, not from the code under test: limits of memory by CPU, of probes, of
timeouts, reserved names, fields that only the cloud sets.
"""

from __future__ import annotations

from typing import Any

from google.cloud import run_v2
from google.protobuf import json_format

OUTPUT_ONLY = {
    "uid", "generation", "create_time", "update_time", "delete_time", "expire_time", "creator",
    "last_modifier", "observed_generation", "terminal_condition", "conditions",
    "latest_ready_revision", "latest_created_revision", "traffic_statuses", "uri", "urls",
    "satisfies_pzs", "reconciling",
}  # fmt: skip
MEMORY_GIB = {"1": (0.5, 4), "2": (0.5, 8), "4": (2, 16), "6": (4, 24), "8": (4, 32)}


class Refused(Exception):
    """An error of the API."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code, self.message = code, message


def refuse_unless(condition: object, message: str) -> None:
    if not condition:
        raise Refused(400, message)


def parse(body: dict[str, Any]) -> Any:
    """The message of a body; raises ParseError for a field that it does not have."""
    return json_format.ParseDict(body, run_v2.Service.pb(run_v2.Service()))


def check_service(service: Any) -> None:
    """Raises Refused. ``service`` is the protobuf message."""
    given = {field.name for field, _ in service.ListFields()}
    refuse_unless(not given & OUTPUT_ONLY, f"output only: {sorted(given & OUTPUT_ONLY)}")
    template = service.template
    refuse_unless(len(template.containers) == 1, "exactly one container has a port")
    low, high = service.scaling.min_instance_count, template.scaling.max_instance_count
    refuse_unless(0 <= low <= high, "min instances beyond max instances")
    refuse_unless(0 < template.timeout.seconds <= 3600, "timeout is 1 to 3600 s")
    refuse_unless(
        1 <= template.max_instance_request_concurrency <= 1000, "concurrency is 1 to 1000"
    )
    refuse_unless(sum(x.percent for x in service.traffic) == 100, "traffic is not 100 %")
    _check_container(template.containers[0], template)


def _check_container(container: Any, template: Any) -> None:
    limits = dict(container.resources.limits)
    cpu, memory = limits.get("cpu", ""), limits.get("memory", "")
    refuse_unless(cpu in MEMORY_GIB, f"cpu {cpu}")
    refuse_unless(memory.endswith("Gi"), f"memory {memory}")
    least, most = MEMORY_GIB[cpu]
    refuse_unless(least <= float(memory[:-2]) <= most, f"{memory} with {cpu} CPU")
    refuse_unless(set(limits) <= {"cpu", "memory", "nvidia.com/gpu"}, f"limits {limits}")
    gpu = template.node_selector.accelerator
    refuse_unless(bool(gpu) == ("nvidia.com/gpu" in limits), "accelerator and GPU limit differ")
    if gpu:
        refuse_unless(gpu == "nvidia-l4" and limits["nvidia.com/gpu"] == "1", f"accelerator {gpu}")
        refuse_unless(int(cpu) >= 4 and float(memory[:-2]) >= 16, "an L4 needs 4 CPU and 16Gi")
        refuse_unless(not container.resources.cpu_idle, "a GPU needs CPU that is always there")
    names = [each.name for each in container.env]
    refuse_unless(len(set(names)) == len(names), "a variable is given twice")
    for name in names:
        reserved = name == "PORT" or name.startswith(("K_", "X_GOOGLE_", "CLOUD_RUN_"))
        refuse_unless(not reserved, f"reserved environment variable {name}")
    for each in container.env:
        reference = each.value_source.secret_key_ref
        refuse_unless(bool(each.value) != bool(reference.secret), f"{each.name}: value or source")
        refuse_unless(not reference.secret or reference.version, f"{each.name}: no version")
    volumes = {each.name for each in template.volumes}
    refuse_unless({x.name for x in container.volume_mounts} <= volumes, "a mount of no volume")
    (port,) = container.ports
    refuse_unless(port.name in ("http1", "h2c"), f"port name {port.name}")
    for kind in ("startup_probe", "liveness_probe", "readiness_probe"):
        if container.HasField(kind):
            _check_probe(kind, getattr(container, kind), port.container_port)


def _check_probe(kind: str, probe: Any, port: int) -> None:
    refuse_unless(probe.timeout_seconds <= probe.period_seconds, f"{kind}: timeout beyond period")
    refuse_unless(probe.failure_threshold >= 1, f"{kind}: failure threshold")
    refuse_unless(probe.http_get.path.startswith("/"), f"{kind}: no path")
    refuse_unless(probe.http_get.port in (0, port), f"{kind}: port {probe.http_get.port}")
    if kind == "startup_probe":
        total = probe.period_seconds * probe.failure_threshold
        refuse_unless(total <= 240, f"{kind}: {total} s is more than 240")
