"""An emulated endpoint with a new version to roll out, Cloud Monitoring, and a clock."""

from __future__ import annotations

from typing import Any

from monitor_emulator import MonitoringEmulator
from vertex_specs import IMAGE, Workbench, changed

from deploy.vertex.monitor_rest import open_monitoring
from deploy.vertex.rollback import rollback
from deploy.vertex.rollout import Done, Watching, rollout
from deploy.vertex.rollout_sources import MonitoringSource
from deploy.vertex.rollout_split import Record, read_record

NEWER = IMAGE.replace("1.0.0", "1.1.0")
ROLLOUT = {"watch_s": 30, "max_latency_ms": 1000}
OLD, NEW = "7001", "7002"


class Clock:
    """Time that only pauses let go by; ``events`` happen at their times."""

    def __init__(self) -> None:
        self.time = 0.0
        self.events: list[tuple[float, Any]] = []

    def now(self) -> float:
        return self.time

    def pause(self, seconds: float) -> None:
        self.time += seconds
        while self.events and self.events[0][0] <= self.time:
            self.events.pop(0)[1]()


class Site:
    """The workbench, its Cloud Monitoring, and a clock."""

    def __init__(self, bench: Workbench, monitoring: MonitoringEmulator) -> None:
        self.bench, self.monitoring, self.clock = bench, monitoring, Clock()

    def start(self, newer: dict[str, Any] | None = None) -> None:
        """The first version runs, and the spec says another."""
        self.bench.use(changed(rollout=ROLLOUT))
        self.bench.apply()
        self.bench.use(newer or changed(rollout=ROLLOUT, deployments__0__image=NEWER))

    def watching(self, _: Any) -> Watching:
        api = open_monitoring(self.bench.spec.project)
        source = MonitoringSource(api, self.bench.spec.endpoint_id, self.clock.now)
        return Watching([source], 15.0, self.clock.now, self.clock.pause)

    def rollout(self, name: str | None = None, *, keep_old: bool = False) -> Done:
        bench = self.bench
        return rollout(
            bench.cloud, bench.spec, name, self.watching, bench.told.append, keep_old=keep_old
        )

    def rollback(self, *, keep_new: bool = False) -> Record:
        return rollback(
            self.bench.cloud, self.bench.spec, self.bench.told.append, keep_new=keep_new
        )

    @property
    def splits(self) -> list[dict[str, int]]:
        """Every traffic split that was sent."""
        sent = [s.body for s in self.bench.emulator.changes if s.method == "updateEndpoint"]
        return [body["trafficSplit"] for body in sent if "trafficSplit" in body]

    @property
    def split(self) -> dict[str, int]:
        shown: dict[str, int] = self.bench.endpoint["trafficSplit"]
        return {key: share for key, share in shown.items() if share}

    @property
    def record(self) -> Record | None:
        return read_record(self.bench.endpoint["labels"])

    @property
    def versions(self) -> list[str]:
        return [each["displayName"] for each in self.bench.endpoint.get("deployedModels", [])]
