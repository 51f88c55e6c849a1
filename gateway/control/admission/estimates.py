"""What admission expects of a model, learnt from what has run."""

from __future__ import annotations

import math
from typing import Final

# Output tokens of one choice that are expected before anything is known.
FIRST_OUTPUT: Final = 256
# Weight of the newest value once there are enough of them.
NEWEST: Final = 0.1
# Requests that must have ended before anybody is turned away on account of an expectation.
FEWEST: Final = 5
LONGEST_RETRY_S: Final = 60
"""The official SDKs do not obey a longer Retry-After."""


class RunningMean:
    """A mean that forgets: plain at first, exponentially weighted later.

    Args:
        value: what it is before it knows anything. count: values that this stands for.
    """

    __slots__ = ("count", "value")

    def __init__(self, value: float, count: int = 0) -> None:
        self.value = value
        self.count = count

    def add(self, value: float) -> None:
        self.count += 1
        self.value += (value - self.value) * max(NEWEST, 1 / self.count)


class Estimates:
    """Of one engine.

    Attributes:
        output: tokens that a choice has when nobody limits it.
        filled: of ``max_tokens``, the share that answers use. spread: mean distance from it.
        service_s: how long a request runs.
    """

    __slots__ = ("filled", "output", "service_s", "spread")

    def __init__(self) -> None:
        self.output = RunningMean(FIRST_OUTPUT)
        self.filled = RunningMean(1.0, FEWEST)
        self.spread = RunningMean(0.0, FEWEST)
        self.service_s = RunningMean(0.0)

    def output_tokens(self, max_tokens: int, *, is_capped: bool) -> int:
        """Expected output of one choice. Many clients ask for far more than they get, and
        memory set aside for that would stand empty; so a cap counts as far as caps are used."""
        if is_capped:
            share = min(1.0, self.filled.value + self.spread.value)
            return math.ceil(max_tokens * share)
        return min(max_tokens, math.ceil(self.output.value))

    def learn_output(self, tokens: float, max_tokens: int, *, is_capped: bool) -> None:
        """Take note of a choice that has come to its end."""
        if is_capped:
            share = tokens / max_tokens
            self.spread.add(abs(share - self.filled.value))
            self.filled.add(share)
        if tokens < max_tokens or not is_capped:
            self.output.add(tokens)

    def wait_s(self, before: float, running: int) -> float | None:
        """How long until a request runs that has ``before`` others before it, by Little's law:
        with ``running`` requests of ``service_s`` seconds each, one ends every
        ``service_s / running`` seconds. None while that is not known."""
        if self.service_s.count < FEWEST:
            return None
        return (before + 1) * self.service_s.value / max(1, running)

    def retry_after(self, waiting: int, running: int) -> int:
        """Seconds after which those that wait now have begun, within what clients obey."""
        wait = self.wait_s(max(0, waiting - 1), running)
        return 1 if wait is None else min(LONGEST_RETRY_S, max(1, math.ceil(wait)))
