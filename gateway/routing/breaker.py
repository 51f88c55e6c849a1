"""A circuit breaker per server: requests stop going where they keep failing.

    closed ──failures in a row──▶ open ──time is up──▶ half-open ──successes──▶ closed
                                   ▲                       │
                                   └───────failure─────────┘  (twice as long)

The pattern is Nygard's ("Release It!", 2007). Half-open lets one request through at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

from gateway.routing.config import BreakerRules

BreakerState = Literal["closed", "open", "half_open"]


Pass = Literal["usual", "trial"]


class Breaker:
    """Owned by the event loop.

    What ``try_pass`` gives is handed back to exactly one of ``succeed``, ``fail`` and
    ``abandon``. What began before the breaker opened says nothing of the time since.
    """

    __slots__ = ("_clock", "_failures", "_open_s", "_open_until", "_rules", "_successes", "_trial")

    def __init__(self, rules: BreakerRules, clock: Callable[[], float] = time.monotonic) -> None:
        self._rules = rules
        self._clock = clock
        self._failures = 0
        self._successes = 0
        self._open_until: float | None = None
        self._open_s = rules.open_s
        self._trial = False

    @property
    def state(self) -> BreakerState:
        """As of now."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    @property
    def passes(self) -> bool:
        """Whether a request would be let through now."""
        state = self.state
        return state == "closed" or (state == "half_open" and not self._trial)

    @property
    def retry_in_s(self) -> float:
        """Seconds until the next trial; 0 unless open."""
        if self._open_until is None:
            return 0.0
        return max(0.0, self._open_until - self._clock())

    def try_pass(self) -> Pass | None:
        """Let a request through, or not."""
        if not self.passes:
            return None
        if self._open_until is None:
            return "usual"
        self._trial = True
        return "trial"

    def succeed(self, given: Pass) -> None:
        """The server answered."""
        if given == "usual":
            self._failures = 0
            return
        self._trial = False
        self._successes += 1
        if self._successes >= self._rules.successes:
            self._open_until = None
            self._open_s = self._rules.open_s

    def fail(self, given: Pass) -> None:
        """The server did not answer, or not with what was asked for."""
        if given == "trial":
            self._open_s = min(self._open_s * 2, self._rules.most_open_s)
            self._open()
        elif self._open_until is None:
            self._failures += 1
            if self._failures >= self._rules.failures:
                self._open()

    def abandon(self, given: Pass) -> None:
        """Nobody waited for the outcome, so nothing is known."""
        if given == "trial":
            self._trial = False

    def _open(self) -> None:
        self._open_until = self._clock() + self._open_s
        self._failures = self._successes = 0
        self._trial = False
