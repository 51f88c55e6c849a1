"""What was seen of a version in a while, and whether that is within the spec's bounds."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.vertex.spec_parts import Rollout


@dataclass(frozen=True, slots=True)
class Window:
    """Requests to one version.

    Attributes:
        requests: that were answered or given up.
        errors: those of them that failed on the server's side.
        p95_ms: 95th percentile of their duration in milliseconds; None where nothing is known.
    """

    requests: float
    errors: float
    p95_ms: float | None

    @property
    def error_rate(self) -> float:
        """Share of requests that failed, from 0 to 1."""
        return self.errors / self.requests if self.requests else 0.0

    def __str__(self) -> str:
        latency = "" if self.p95_ms is None else f", p95 {self.p95_ms:.0f} ms"
        return f"{self.requests:.0f} requests, {self.error_rate:.1%} failed{latency}"


def says_enough(window: Window, bounds: Rollout) -> bool:
    """Whether there were requests enough to conclude from."""
    return window.requests > 0 and window.requests >= bounds.min_requests


def fault(window: Window, bounds: Rollout) -> str | None:
    """Which bound is passed, as a sentence's end; None for none, or too few requests."""
    if not says_enough(window, bounds):
        return None
    if window.error_rate > bounds.max_error_rate:
        return (
            f"{window.error_rate:.1%} of {window.requests:.0f} requests failed, more than "
            f"max_error_rate {bounds.max_error_rate:.1%}"
        )
    most = bounds.max_latency_ms
    if most is not None and window.p95_ms is not None and window.p95_ms > most:
        return (
            f"the 95th percentile of {window.requests:.0f} requests is {window.p95_ms:.0f} ms, "
            f"more than max_latency_ms {most:.0f}"
        )
    return None
