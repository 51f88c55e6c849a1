"""The first replica and the last one: what KEDA's operator does besides the HPA that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.autoscaling.hpa import Autoscaler, Decision, PodPhase
from benchmarks.autoscaling.manifests import TRIGGER, ScaledObject


@dataclass(slots=True)
class Keda:
    """One ScaledObject at work; times are seconds on the caller's clock.

    Attributes:
        active: when the trigger was last above its activation threshold.
    """

    scaled: ScaledObject
    hpa: Autoscaler = field(init=False)
    active: float | None = None

    def __post_init__(self) -> None:
        self.hpa = Autoscaler(self.scaled.hpa)

    def decide(
        self, now: float, current: int, pods: Mapping[str, PodPhase], value: float | None
    ) -> Decision:
        """One look. ``value`` is what the query said; None where it had no answer: then nothing
        changes."""
        if value is None:
            return Decision(current, None, "the query has no answer")
        if value > self.scaled.activation:
            self.active = now
            if current == 0:
                return Decision(1, 1)
        elif current and (self.active is None or now - self.active > self.scaled.cooldown_s):
            return Decision(0, 0)
        # Of thousandths, as the external metrics API hands them on.
        return self.hpa.decide(now, current, pods, {TRIGGER: int(value * 1000)})
