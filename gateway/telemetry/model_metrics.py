"""Counters of one served model."""

from __future__ import annotations

from collections import Counter

from gateway.telemetry.histogram import GAP_BUCKETS, LATENCY_BUCKETS, Histogram


class ModelMetrics:
    """What has been generated under one model's name. Owned by the event loop."""

    def __init__(self) -> None:
        self.finished: Counter[str] = Counter()
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generation_tokens = 0
        self.first_token = Histogram(LATENCY_BUCKETS)
        self.gap = Histogram(GAP_BUCKETS)
        self.end_to_end = Histogram(LATENCY_BUCKETS)
        self.queue = Histogram(LATENCY_BUCKETS)
