"""Batches and their lines as Prometheus sees them, for the process that works them off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.batch.pace import Pacer

LineOutcome = Literal["completed", "failed", "not_run"]


@dataclass(slots=True)
class BatchCounts:
    """What this process has noted in the store since its start.

    Attributes:
        ended: batches by their last status.
        lines: lines that have a result, by what it is.
    """

    ended: Counter[str] = field(default_factory=Counter)
    lines: Counter[LineOutcome] = field(default_factory=Counter)


class BatchMetrics:
    """Gauges are read when scraped.

    Args:
        working: how many batches are being worked on.
    """

    def __init__(self, counts: BatchCounts, pacer: Pacer, working: Callable[[], int]) -> None:
        self._counts = counts
        self._pacer = pacer
        self._working = working

    def collect(self) -> Iterator[Metric]:
        """Samples at this moment."""
        pacer, counts = self._pacer, self._counts
        gauges = {
            "gateway_batch_active": ("Batches being worked on.", self._working()),
            "gateway_batch_lines_running": ("Lines of batches being answered.", pacer.running),
            "gateway_batch_lines_waiting": ("Lines that wait for a free seat.", pacer.waiting),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(name, text, value)
        ended = CounterMetricFamily("gateway_batch_ended", "Ended batches.", labels=["status"])
        for status, count in counts.ended.items():
            ended.add_metric([status], count)
        yield ended
        lines = CounterMetricFamily(
            "gateway_batch_lines", "Lines that have a result.", labels=["outcome"]
        )
        for outcome, count in counts.lines.items():
            lines.add_metric([outcome], count)
        yield lines
