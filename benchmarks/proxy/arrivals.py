"""When the load sends: at random moments that no answer changes, or as soon as one is there."""

from __future__ import annotations

from random import Random
from typing import Protocol


class Arrivals(Protocol):
    """Times in nanoseconds of the clock that the load runs on."""

    def start(self, now: int) -> None:
        """The load begins."""

    def due(self, now: int, outstanding: int) -> bool:
        """Whether to send a request now; counts it as sent."""

    def next_at(self) -> int | None:
        """When the next one will be due by the clock alone, or None."""

    def over(self, now: int) -> bool:
        """Whether no more will come."""

    @property
    def lag_ns(self) -> list[int]:
        """How late requests were noticed to be due."""


class Poisson:
    """An open loop: ``rate`` requests per second on average, whatever becomes of them.

    Independent callers do not wait for each other, so a slow server meets a queue; a closed loop
    would send it less instead (Schroeder, Wierman, Harchol-Balter, "Open Versus Closed: A
    Cautionary Tale", NSDI 2006).
    """

    def __init__(self, rate: float, seconds: float, seed: int) -> None:
        rng = Random(seed)
        at = 0.0
        self._at: list[int] = []
        while (at := at + rng.expovariate(rate)) < seconds:
            self._at.append(int(at * 1e9))
        self._at.reverse()
        self._begin = 0
        self.lag_ns: list[int] = []

    def start(self, now: int) -> None:
        """The load begins."""
        self._begin = now

    def due(self, now: int, outstanding: int) -> bool:
        """Whether its moment has come."""
        if not self._at or self._begin + self._at[-1] > now:
            return False
        self.lag_ns.append(now - self._begin - self._at.pop())
        return True

    def next_at(self) -> int | None:
        """The moment of the next request."""
        return self._begin + self._at[-1] if self._at else None

    def over(self, now: int) -> bool:
        """All are sent."""
        return not self._at


class Closed:
    """``connections`` callers, each of which asks again when answered, for a while."""

    def __init__(self, connections: int, seconds: float) -> None:
        self._connections = connections
        self._duration = int(seconds * 1e9)
        self._end = 0
        self.lag_ns: list[int] = []

    def start(self, now: int) -> None:
        """The load begins."""
        self._end = now + self._duration

    def due(self, now: int, outstanding: int) -> bool:
        """Whether a caller is free."""
        return outstanding < self._connections and now < self._end

    def next_at(self) -> int | None:
        """Answers set the pace."""
        return None

    def over(self, now: int) -> bool:
        """The time is up."""
        return now >= self._end
