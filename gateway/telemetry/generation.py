"""What is measured of one generation, token by token, cheaply."""

from __future__ import annotations

import time

from engine.base import Delta
from gateway.control.gate import Used
from gateway.telemetry.model_metrics import ModelMetrics


class GenerationMeter:
    """Times and counts of one request; counted into the metrics once, by ``close``.

    Attributes:
        completion_tokens: of all choices so far.
        cached_tokens: prompt tokens found in the prefix cache.
        ttft_s: seconds from arrival to the first delta, or None before it.
    """

    __slots__ = (
        "_last",
        "_metrics",
        "_queue_s",
        "_reasons",
        "_started",
        "cached_tokens",
        "completion_tokens",
        "prompt_tokens",
        "ttft_s",
    )

    def __init__(
        self, metrics: ModelMetrics, started: float, prompt_tokens: int, choices: int
    ) -> None:
        self._metrics = metrics
        self._started = started
        self._last: list[float] = [0.0] * choices
        self._queue_s = 0.0
        self._reasons: list[str] = []
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.ttft_s: float | None = None

    def see(self, delta: Delta) -> None:
        """Take note of a delta. A delta of several tokens counts as that many equal gaps."""
        count = len(delta.token_ids)
        now = time.perf_counter()
        if self.ttft_s is None:
            self.ttft_s = now - self._started
            self.cached_tokens = delta.cached_tokens
            self._queue_s = delta.queue_s
            self._metrics.first_token.observe(self.ttft_s)
            self._metrics.queue.observe(self._queue_s)
        last = self._last[delta.index]
        if last and count:
            self._metrics.gap.observe((now - last) / count, count)
        self._last[delta.index] = now
        self.completion_tokens += count
        self._metrics.generation_tokens += count
        if delta.finish_reason is not None:
            self._reasons.append(delta.finish_reason)

    def close(self, *, completed: bool) -> None:
        """Add the request's totals to the metrics; reasons and latency only if it completed."""
        metrics = self._metrics
        if self.ttft_s is not None:
            metrics.prompt_tokens += self.prompt_tokens
            metrics.cached_tokens += self.cached_tokens
        if completed:
            metrics.end_to_end.observe(time.perf_counter() - self._started)
            metrics.finished.update(self._reasons)

    def settle(self, used: Used) -> None:
        """Say what the engine did; nothing when it never began."""
        if self.ttft_s is not None:
            used.prompt_tokens = self.prompt_tokens
            used.cached_tokens = self.cached_tokens
            used.completion_tokens = self.completion_tokens
            used.finish_reasons = tuple(self._reasons)

    def details(self) -> dict[str, int | float | None]:
        """Fields of the access log line."""
        ttft_ms = None if self.ttft_s is None else round(self.ttft_s * 1000, 2)
        return {
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "ttft_ms": ttft_ms,
            "queue_ms": round(self._queue_s * 1000, 2),
        }
