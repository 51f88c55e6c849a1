"""What admission counts, and how it shows in the metrics."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from gateway.control.rights import CLASSES
from gateway.telemetry.histogram import LATENCY_BUCKETS, Histogram

# Why a request was not admitted.
REASONS = ("queue_full", "displaced", "expected_wait", "queue_timeout", "deadline")


class AdmissionStats:
    """Counted on the event loop.

    Args:
        depth: requests that wait now, by model and index of their class.
    """

    def __init__(self, depth: Callable[[], Mapping[tuple[str, int], int]]) -> None:
        self._depth = depth
        self._waits: defaultdict[tuple[str, int], Histogram] = defaultdict(
            lambda: Histogram((0.0, *LATENCY_BUCKETS))
        )
        self.shed: Counter[tuple[int, str]] = Counter(
            {(rank, reason): 0 for rank in range(len(CLASSES)) for reason in REASONS}
        )

    def note_wait(self, model: str, rank: int, seconds: float) -> None:
        """Count a request that was admitted after this wait."""
        self._waits[model, rank].observe(seconds)

    def collect(self) -> Iterator[Metric]:
        """The samples at this moment."""
        depth = GaugeMetricFamily(
            "gateway_queue_depth",
            "Requests that wait in the gateway for room in an engine.",
            labels=["model_name", "class"],
        )
        for (model, rank), count in self._depth().items():
            depth.add_metric([model, CLASSES[rank]], count)
        yield depth
        waits = HistogramMetricFamily(
            "gateway_queue_wait_seconds",
            "Time in the gateway's queue, of admitted requests.",
            labels=["model_name", "class"],
        )
        for (model, rank), histogram in self._waits.items():
            waits.add_metric([model, CLASSES[rank]], histogram.cumulative(), histogram.total)
        yield waits
        shed = CounterMetricFamily(
            "gateway_shed",
            "Requests that were not admitted.",
            labels=["class", "reason"],
        )
        for (rank, reason), count in self.shed.items():
            shed.add_metric([CLASSES[rank], reason], count)
        yield shed
