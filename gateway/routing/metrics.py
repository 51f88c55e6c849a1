"""Metrics of targets: read when scraped, from what each keeps of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.control.pool import Pool

BREAKER = {"closed": 0, "half_open": 1, "open": 2}


def target_metrics(pools: Iterable[Pool]) -> Iterator[Metric]:
    """Of every server elsewhere, and of every model's copies."""
    labels = ["model_name", "target"]
    up = GaugeMetricFamily("gateway_target_up", "1 while the target may be asked.", labels=labels)
    breaker = GaugeMetricFamily(
        "gateway_target_breaker",
        "Circuit breaker of the target: 0 closed, 1 half open, 2 open.",
        labels=labels,
    )
    outstanding = GaugeMetricFamily(
        "gateway_target_requests_outstanding",
        "Requests that the target works on.",
        labels=labels,
    )
    attempts = CounterMetricFamily(
        "gateway_target_attempts",
        "Attempts at the target by how they ended.",
        labels=[*labels, "outcome"],
    )
    copies = CounterMetricFamily(
        "gateway_shadow_requests",
        "Copies of requests for a model being tried out, by how they ended.",
        labels=["model_name", "outcome"],
    )
    hedges = CounterMetricFamily(
        "gateway_hedged_requests",
        "Requests that a second server was asked for as well, by who began to answer first.",
        labels=["model_name", "outcome"],
    )
    for pool in pools:
        name = pool.names[0]
        if pool.hedging is not None:
            for outcome, count in pool.hedging.outcomes.items():
                hedges.add_metric([name, outcome], count)
        for upstream in pool.upstreams:
            own = [name, upstream.name]
            up.add_metric(own, float(upstream.available))
            breaker.add_metric(own, BREAKER[upstream.breaker.state])
            outstanding.add_metric(own, upstream.outstanding)
            for outcome, count in upstream.outcomes.items():
                attempts.add_metric([*own, outcome], count)
        if pool.spec.shadow is not None:
            for outcome, count in pool.shadows.outcomes.items():
                copies.add_metric([name, outcome], count)
    yield from (up, breaker, outstanding, attempts, copies, hedges)
