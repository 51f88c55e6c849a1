"""What prometheus-adapter answers to the HPA, and Prometheus to KEDA."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.autoscaling.manifests import AdapterRule, faster_query
from benchmarks.autoscaling.processes import NAMESPACE
from benchmarks.autoscaling.prometheus import Prometheus


class CustomMetrics:
    """The custom metrics API, by the adapter's rules.

    Args:
        factor: by how much time runs faster than the rules think.
    """

    def __init__(self, prometheus: Prometheus, rules: Sequence[AdapterRule], factor: float) -> None:
        self._prometheus = prometheus
        self._rules = rules
        self._factor = factor
        self._series: dict[str, tuple[AdapterRule, str]] = {}

    def read(self, metric: str, pods: Sequence[str]) -> dict[str, int] | None:
        """Thousandths by pod; None where there is nothing of any."""
        if metric not in self._series:
            self._look_for_series()
        found = self._series.get(metric)
        if found is None or not pods:
            return None
        rule, series = found
        expression = faster_query(rule.expression(series, NAMESPACE, list(pods)), self._factor)
        samples = self._prometheus.query(expression)
        values = {one.labels["pod"]: thousandths(one.value) for one in samples}
        return values or None

    def _look_for_series(self) -> None:
        for rule in self._rules:
            found = self._prometheus.api("series", **{"match[]": rule.series})
            for name in sorted({labels["__name__"] for labels in found}):
                metric = rule.metric(name)
                if metric is not None:
                    self._series[metric] = (rule, name)


def asked_directly(prometheus: Prometheus, expression: str, factor: float) -> float | None:
    """KEDA's Prometheus scaler with ``ignoreNullValues: "false"``: None where nothing comes."""
    samples = prometheus.query(faster_query(expression, factor))
    return samples[0].value if len(samples) == 1 else None


def thousandths(value: float) -> int:
    """As the adapter makes a quantity of a sample."""
    return 0 if math.isnan(value) else int(value * 1000)
