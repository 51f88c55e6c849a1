"""The decisions of Kubernetes' HorizontalPodAutoscaler, without a cluster.

Follows kube-controller-manager (pkg/controller/podautoscaler: ``replica_calculator.go``,
``horizontal.go``) for metrics of kind Pods and External with an AverageValue and a ``behavior``:
what metrics propose, then the stabilisation windows, then the rates, then the bounds. Values are
whole thousandths, as Kubernetes' quantities are; times are seconds on any clock that the caller
goes by. CPU metrics, and the rules for pods that have just started which only these have, are
not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

# --horizontal-pod-autoscaler-tolerance
TOLERANCE = 0.1

PodPhase = Literal["pending", "running", "leaving"]
# Values by pod; of an External metric the sum; None where the metrics API failed.
Reading = Mapping[str, int] | int | None


class MetricError(Exception):
    """A metric says nothing that a number of replicas could follow from."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One of ``spec.metrics``.

    Attributes:
        target: ``averageValue`` in thousandths.
    """

    kind: Literal["Pods", "External"]
    name: str
    target: int


@dataclass(frozen=True, slots=True)
class Rate:
    """One of ``behavior.*.policies``: at most ``value`` pods or percent in ``period_s`` seconds."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: float


@dataclass(frozen=True, slots=True)
class Direction:
    """``behavior.scaleUp`` or ``behavior.scaleDown``."""

    window_s: float
    rates: tuple[Rate, ...]
    select: Literal["Max", "Min", "Disabled"] = "Max"
    tolerance: float = TOLERANCE

    @property
    def longest_s(self) -> float:
        """The longest period that a rate looks back."""
        return max((rate.period_s for rate in self.rates), default=0.0)


# What the API server fills in where ``behavior`` leaves a direction out.
USUAL_UP = Direction(0.0, (Rate("Percent", 100, 15.0), Rate("Pods", 4, 15.0)))
USUAL_DOWN = Direction(300.0, (Rate("Percent", 100, 15.0),))


@dataclass(frozen=True, slots=True)
class Hpa:
    """The part of a HorizontalPodAutoscaler's ``spec`` that decides."""

    min_replicas: int
    max_replicas: int
    metrics: tuple[Metric, ...]
    up: Direction = USUAL_UP
    down: Direction = USUAL_DOWN


def within(ratio: float, hpa: Hpa) -> bool:
    """Whether usage over target is near enough to 1 to be left alone."""
    return 1.0 - hpa.down.tolerance <= ratio <= 1.0 + hpa.up.tolerance


def by_pods(
    hpa: Hpa, current: int, pods: Mapping[str, PodPhase], values: Mapping[str, int], target: int
) -> int:
    """Replicas that a Pods metric asks for. Raises MetricError where no pod has a value."""
    leaving = {name for name, phase in pods.items() if phase == "leaving"}
    pending = {name for name, phase in pods.items() if phase == "pending"}
    missing = set(pods) - leaving - pending - set(values)
    known = {name: value for name, value in values.items() if name not in leaving | pending}
    if not known:
        raise MetricError("no ready pod has a value")
    ready = len(set(pods) - leaving - pending - missing)
    ratio = mean(known) / target
    counts_pending = bool(pending) and ratio > 1.0
    if not counts_pending and not missing:
        return current if within(ratio, hpa) else math.ceil(ratio * ready)
    # What is not known is taken for what changes least.
    known |= dict.fromkeys(missing, target if ratio < 1.0 else 0)
    if counts_pending:
        known |= dict.fromkeys(pending, 0)
    anew = mean(known) / target
    turned = (ratio < 1.0 < anew) or (anew < 1.0 < ratio)
    if within(anew, hpa) or turned:
        return current
    wanted = math.ceil(anew * len(known))
    if (anew < 1.0 and wanted > current) or (anew > 1.0 and wanted < current):
        return current
    return wanted


def mean(values: Mapping[str, int]) -> int:
    """In whole thousandths, rounded towards zero as Go's division does."""
    return int(sum(values.values()) / len(values))


def by_total(hpa: Hpa, current: int, total: int, target: int) -> int:
    """Replicas that an External metric with an AverageValue asks for."""
    if current and within(total / (target * current), hpa):
        return current
    return math.ceil(total / target)


def proposed(
    hpa: Hpa, current: int, pods: Mapping[str, PodPhase], readings: Mapping[str, Reading]
) -> int:
    """The most that any metric asks for.

    Raises MetricError where none says anything, or where one is silent and the others ask for
    fewer than there are.
    """
    found: list[int] = []
    faults: list[str] = []
    for metric in hpa.metrics:
        try:
            found.append(_asked(hpa, current, pods, metric, readings.get(metric.name)))
        except MetricError as error:
            faults.append(f"{metric.name}: {error}")
    if not found or (faults and max(found) < current):
        raise MetricError("; ".join(faults))
    return max(found)


def _asked(
    hpa: Hpa, current: int, pods: Mapping[str, PodPhase], metric: Metric, reading: Reading
) -> int:
    if reading is None:
        raise MetricError("the metrics API has nothing")
    if isinstance(reading, int):
        return by_total(hpa, current, reading, metric.target)
    return by_pods(hpa, current, pods, reading, metric.target)


@dataclass(frozen=True, slots=True)
class Decision:
    """What one look came to.

    Attributes:
        replicas: to have from now on.
        asked: by the metrics, before windows, rates and bounds; None where these were silent.
        fault: why they were.
    """

    replicas: int
    asked: int | None = None
    fault: str = ""


@dataclass(slots=True)
class Autoscaler:
    """One HorizontalPodAutoscaler at work.

    Attributes:
        asked: what metrics asked for, with its time, as far back as a window goes.
        added, removed: changes that it made, with their times, as far back as a rate goes.
    """

    hpa: Hpa
    asked: list[tuple[float, int]] = field(default_factory=list)
    added: list[tuple[float, int]] = field(default_factory=list)
    removed: list[tuple[float, int]] = field(default_factory=list)

    def decide(
        self,
        now: float,
        current: int,
        pods: Mapping[str, PodPhase],
        readings: Mapping[str, Reading],
    ) -> Decision:
        """One look, every --horizontal-pod-autoscaler-sync-period (15 s). ``readings`` go by the
        names of the metrics."""
        hpa = self.hpa
        if not self.asked:
            self.asked.append((now, current))
        if current == 0 and hpa.min_replicas:
            return Decision(0)  # somebody has turned it off
        if not hpa.min_replicas <= current <= hpa.max_replicas:
            bounded = min(max(current, hpa.min_replicas), hpa.max_replicas)
            return self._decided(now, current, Decision(bounded))
        try:
            wanted = proposed(hpa, current, pods, readings)
        except MetricError as error:
            return Decision(current, None, str(error))
        steady = self._stabilised(now, current, wanted)
        return self._decided(now, current, Decision(self._limited(now, current, steady), wanted))

    def _decided(self, now: float, current: int, decision: Decision) -> Decision:
        change = decision.replicas - current
        if change:
            events, rule = (
                (self.added, self.hpa.up) if change > 0 else (self.removed, self.hpa.down)
            )
            events[:] = [event for event in events if event[0] > now - rule.longest_s]
            events.append((now, abs(change)))
        return decision

    def _stabilised(self, now: float, current: int, wanted: int) -> int:
        """Up by the least, down by the most that was asked for within the window."""
        up, down = self.hpa.up, self.hpa.down
        least = min([n for at, n in self.asked if at > now - up.window_s], default=wanted)
        most = max([n for at, n in self.asked if at > now - down.window_s], default=wanted)
        window = max(up.window_s, down.window_s)
        self.asked[:] = [one for one in self.asked if one[0] > now - window]
        self.asked.append((now, wanted))
        return min(max(current, min(least, wanted)), max(most, wanted))

    def _limited(self, now: float, current: int, wanted: int) -> int:
        """Within the rates and the bounds."""
        hpa = self.hpa
        if wanted > current:
            most = max(current, self._reach(now, current, hpa.up, 1))
            return min(wanted, most, hpa.max_replicas)
        if wanted < current:
            least = min(current, self._reach(now, current, hpa.down, -1))
            return max(wanted, least, hpa.min_replicas)
        return wanted

    def _reach(self, now: float, current: int, rule: Direction, sign: int) -> int:
        """How far the rates let it go in this direction."""
        if rule.select == "Disabled":
            return current
        reaches = []
        for rate in rule.rates:
            began = current + change(self.removed, now - rate.period_s)
            began -= change(self.added, now - rate.period_s)
            if rate.kind == "Pods":
                reaches.append(began + sign * rate.value)
            elif sign > 0:
                reaches.append(math.ceil(began * (1 + rate.value / 100)))
            else:
                reaches.append(int(began * (1 - rate.value / 100)))
        furthest = (rule.select == "Max") == (sign > 0)
        return max(reaches) if furthest else min(reaches)


def change(events: Sequence[tuple[float, int]], since: float) -> int:
    """Replicas that these events changed after a moment."""
    return sum(count for at, count in events if at > since)
