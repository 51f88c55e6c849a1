"""The closed loop: load, router, replicas, Prometheus and the autoscaler, all of them real but
the cluster and the clock, which runs ``factor`` times as fast as the manifests think."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.autoscaling.hpa import Autoscaler, Decision, PodPhase, Reading
from benchmarks.autoscaling.keda import Keda
from benchmarks.autoscaling.manifests import (
    AdapterRule,
    ScaledObject,
    faster,
)
from benchmarks.autoscaling.metrics_api import CustomMetrics, asked_directly
from benchmarks.autoscaling.processes import (
    Gateway,
    LoopError,
    Replicas,
    scrape_targets,
    write_whole,
)
from benchmarks.autoscaling.prometheus import Prometheus

SYNC_S = 15.0  # --horizontal-pod-autoscaler-sync-period
SCRAPE_S = 0.5
PRE_STOP_S = 1.0
MODEL = "chat"
# The router looks at its file more often than pods take to go, as with a preStop hook of 10 s
# and a discovery interval of 5 s.
DISCOVERY = {"kind": "file", "file": "endpoints.txt", "interval": 0.2}
PLAIN = {"name": MODEL, "targets": [{"name": "engine", "kind": "gateway"}]}
SCRAPES = """
global: {{scrape_interval: {scrape_ms}ms, scrape_timeout: {scrape_ms}ms}}
scrape_configs:
- job_name: gateways
  file_sd_configs: [{{files: [engines.json, router.json], refresh_interval: 200ms}}]
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen and decided at one moment.

    Attributes:
        at_s: since the loop began.
        replicas, ready: asked for, and taking requests.
        values: of each metric, the sum over pods.
    """

    at_s: float
    replicas: int
    ready: int
    asked: int | None
    values: Mapping[str, float]


Decide = Callable[[float, int, Mapping[str, PodPhase]], tuple[Decision, dict[str, float]]]


@dataclass(slots=True)
class Loop:
    """A running one; see ``closed_loop``."""

    router: Gateway
    replicas: Replicas
    prometheus: Prometheus
    decide: Decide
    sync_s: float
    began: float = 0.0
    looks: list[Look] = field(default_factory=list)
    _next: float = math.inf

    def begin(self) -> None:
        """Decide from now on."""
        self.began = self._next = time.monotonic()

    def step(self) -> None:
        """Do what is due, and rest a moment. Raises LoopError."""
        if self.router.process.poll() is not None:
            raise LoopError(f"the router ended\n{self.router.logs()}")
        self.replicas.step()
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self.sync_s
            self._look(now)
        time.sleep(0.03)

    def run_until(self, condition: Callable[[], bool], what: str, within_s: float) -> None:
        """Go on until ``condition`` holds. Raises LoopError when it does not in time."""
        until = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > until:
                tail = "\n".join(map(str, self.looks[-40:]))
                raise LoopError(f"waited {within_s} s for {what}\n{tail}\n{self.router.logs()}")
            self.step()

    def _look(self, now: float) -> None:
        replicas = self.replicas
        decision, values = self.decide(now, replicas.count, replicas.phases())
        if decision.replicas != replicas.count:
            replicas.scale(decision.replicas)
        at_s = now - self.began
        self.looks.append(Look(at_s, replicas.count, replicas.ready, decision.asked, values))


@contextmanager
def closed_loop(
    folder: Path,
    engine: Mapping[str, str],
    *,
    model: Mapping[str, Any] = PLAIN,
    decider: Callable[[Prometheus], Decide],
    factor: float,
    replicas: int,
) -> Iterator[Loop]:
    """Start everything with so many replicas; all of it has ended when this is left.

    Args:
        engine: settings of a replica.
        model: of the router's gateway.yaml; its target gets the addresses of the replicas.
    """
    scraping = folder / "prometheus"
    routing = folder / "routing"
    for made in (scraping, routing):
        made.mkdir(parents=True)
    endpoints = routing / "endpoints.txt"
    (routing / "gateway.yaml").write_text(yaml.safe_dump({"models": [with_addresses(model)]}))
    with ExitStack() as stack:
        pods = Replicas(
            folder / "engines", engine, endpoints, scraping / "engines.json", PRE_STOP_S
        )
        stack.callback(pods.kill)
        settings = {"CONFIG_FILE": str(routing / "gateway.yaml"), "MAX_QUEUE": "1024"}
        router = Gateway(folder / "router", settings)
        stack.callback(router.kill)
        config = SCRAPES.format(scrape_ms=round(SCRAPE_S * 1000))
        prometheus = stack.enter_context(Prometheus(scraping, config))
        prometheus.wait_ready()
        pods.scale(replicas)
        loop = Loop(router, pods, prometheus, decider(prometheus), SYNC_S / factor)
        loop.run_until(lambda: pods.ready == replicas, "the first replicas", 60)
        router.wait_ready()
        write_whole(scraping / "router.json", scrape_targets({"router": router.port}))
        loop.begin()
        yield loop


def with_addresses(model: Mapping[str, Any]) -> dict[str, Any]:
    """The model with its only target found by file; addresses and keys of a cluster are gone."""
    (target,) = model["targets"]
    kept = {name: value for name, value in target.items() if name not in ("base_url", "api_key")}
    return {**model, "targets": [{**kept, "discovery": DISCOVERY}]}


def by_hpa(scaler: Autoscaler, rules: list[AdapterRule], factor: float) -> Any:
    """Decides by Pods metrics that the adapter hands on."""

    def decider(prometheus: Prometheus) -> Decide:
        metrics = CustomMetrics(prometheus, rules, factor)

        def decide(
            now: float, current: int, pods: Mapping[str, PodPhase]
        ) -> tuple[Decision, dict[str, float]]:
            readings: dict[str, Reading] = {
                metric.name: metrics.read(metric.name, list(pods)) for metric in scaler.hpa.metrics
            }
            values = {
                name: sum(reading.values()) / 1000
                for name, reading in readings.items()
                if isinstance(reading, dict)
            }
            return scaler.decide(now, current, pods, readings), values

        return decide

    return decider


def by_keda(scaled: ScaledObject, factor: float) -> Any:
    """Decides by what the trigger's query says."""
    quick = ScaledObject(
        faster(scaled.hpa, factor),
        scaled.query,
        scaled.activation,
        scaled.cooldown_s / factor,
        scaled.polling_s / factor,
    )
    keda = Keda(quick)

    def decider(prometheus: Prometheus) -> Decide:
        def decide(
            now: float, current: int, pods: Mapping[str, PodPhase]
        ) -> tuple[Decision, dict[str, float]]:
            value = asked_directly(prometheus, scaled.query, factor)
            decision = keda.decide(now, current, pods, value)
            return decision, {} if value is None else {"trigger": value}

        return decide

    return decider
