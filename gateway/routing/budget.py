"""A budget of further attempts: they are a share of requests, so that they cannot become the load.

A token bucket as in Finagle's RetryBudget: each request puts ``ratio`` tokens in, each retry takes
one out, at most ``burst`` are kept.
"""

from __future__ import annotations

from gateway.routing.config import Hedge, Retries


class RetryBudget:
    """Of one model. Owned by the event loop."""

    __slots__ = ("_most", "_ratio", "_tokens")

    def __init__(self, rules: Retries | Hedge) -> None:
        self._ratio = rules.ratio
        self._most = max(rules.burst, rules.ratio)
        self._tokens = rules.burst

    def note_request(self) -> None:
        """A request came in."""
        self._tokens = min(self._most, self._tokens + self._ratio)

    def take(self) -> bool:
        """Whether one more attempt may be made; it counts as made."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
