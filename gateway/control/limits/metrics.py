"""The limiter's metrics, read when scraped."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.control.limits.limiter import Limiter
from gateway.telemetry.metrics import counter


class LimitsMetrics:
    """A source of the gateway's metrics."""

    def __init__(self, limiter: Limiter) -> None:
        self._limiter = limiter

    def collect(self) -> Iterator[Metric]:
        """Samples at this moment."""
        limiter = self._limiter
        yield counter(
            "gateway_rate_limited",
            "Requests refused by a limit, by whose and which.",
            ["scope", "limit"],
            {(scope, limit): count for (scope, limit), count in limiter.refused.items()},
        )
        yield GaugeMetricFamily(
            "gateway_limit_counters", "Limits being counted.", len(limiter.book.counters)
        )
        shared = limiter.shared
        if shared is None:
            return
        yield GaugeMetricFamily(
            "gateway_redis_up", "1 while limits are shared through Redis.", float(shared.up)
        )
        yield GaugeMetricFamily(
            "gateway_limit_replicas", "Gateways that share the limits.", shared.replicas
        )
        yield CounterMetricFamily(
            "gateway_redis_failures", "Calls that Redis did not answer.", shared.failures
        )
        yield CounterMetricFamily(
            "gateway_redis_waits", "Requests that waited for Redis.", shared.asked
        )
