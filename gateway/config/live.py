"""The configuration that is in force, and what has become of attempts to exchange it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.config.snapshot import Snapshot

if TYPE_CHECKING:
    from gateway.config.reloader import Reloader

Outcome = Literal["applied", "unchanged", "failed"]


class Live:
    """Owned by the event loop.

    Attributes:
        current: in force; exchanged as a whole.
        since: Unix seconds, when it came into force.
        reloads: attempts by how they ended.
        reloader: exchanges it, or None where nothing can.
    """

    def __init__(self, current: Snapshot) -> None:
        self.current = current
        self.since = time.time()
        self.succeeded_at = self.since
        self.reloads: Counter[Outcome] = Counter({"applied": 0, "unchanged": 0, "failed": 0})
        self.reloader: Reloader | None = None

    def put(self, snapshot: Snapshot) -> None:
        """This one is in force from now on."""
        if snapshot is not self.current:
            self.current, self.since = snapshot, time.time()

    def note(self, outcome: Outcome) -> None:
        """Count an attempt."""
        self.reloads[outcome] += 1
        if outcome != "failed":
            self.succeeded_at = time.time()

    def collect(self) -> Iterator[Metric]:
        """For the metrics."""
        info = GaugeMetricFamily(
            "gateway_config_info", "Hash of the configuration in force.", labels=["hash"]
        )
        info.add_metric([self.current.digest], 1)
        reloads = CounterMetricFamily(
            "gateway_config_reloads", "Reloads by how they ended.", labels=["outcome"]
        )
        for outcome, count in self.reloads.items():
            reloads.add_metric([outcome], count)
        succeeded = GaugeMetricFamily(
            "gateway_config_last_reload_success_timestamp_seconds",
            "When the configuration was last read without a fault, the start included.",
            self.succeeded_at,
        )
        yield from (info, reloads, succeeded)
