"""What is to be told to Redis and asked of it, made into calls of the script."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from gateway.control.limits.book import Book, Costs, Hold, Refusal
from gateway.control.limits.counter import HELD_HINT_MS, Counter
from gateway.control.limits.windows import HELD

# All replicas together lease at most one part in so many of a limit ahead of their requests.
LEASED_PART = 8
# Bounds of one call, so that Redis is never held up for long.
MOST_WINDOWS = 128
MOST_GROUPS = 64

Answer = list[Hold] | Refusal | None


@dataclass(slots=True, eq=False)
class Ask:
    """A request that waits; its answer is None when Redis was lost."""

    costs: Costs
    answer: asyncio.Future[Answer]


@dataclass(slots=True)
class Call:
    """What one call tells and asks."""

    counters: list[Counter]
    asks: list[Ask]
    keys: list[str]
    request: dict[str, Any]


class Outbox:
    """Owned by the store.

    Attributes:
        asks: requests that wait, in their order.
        changed: counters that may have something to tell, or run low on their lease.
        resend: counters of which Redis may know anything.
        replicas: among which leases are divided; 0 leases nothing ahead.
    """

    def __init__(self, book: Book, prefix: str, proc: str, ttl_s: float, grace_s: float) -> None:
        self._book = book
        self._prefix = prefix
        self._proc = proc
        self._fixed = {
            "proc": proc,
            "ttl": round(ttl_s * 1000),
            "grace": round(grace_s * 1000),
            "hint": HELD_HINT_MS,
        }
        self.asks: list[Ask] = []
        self.changed: set[Counter] = set()
        self.resend: set[Counter] = set()
        self.replicas = 0

    @property
    def has_news(self) -> bool:
        """Whether there is something to tell or to ask."""
        return bool(self.asks or self.changed or self.resend)

    def resend_all(self) -> None:
        """Redis may have forgotten anything, and may count grants that never arrived."""
        for counter in self._book.counters.values():
            counter.drop_lease()
            counter.resend = True
            self.resend.add(counter)

    def answer_all(self) -> None:
        """Redis is lost: nobody is to wait for it."""
        asks, self.asks = self.asks, []
        give_up(asks)

    def compose(self) -> Call:
        """The next call; what does not fit stays for the one after it."""
        counters: dict[Counter, int] = {}
        asks = self._take_asks(counters)
        self._take_waiting(self.resend, counters)
        self._take_waiting(self.changed, counters)
        keys = [f"{self._prefix}:epoch", f"{self._prefix}:replicas"]
        for counter in counters:
            name = f"{self._prefix}:{':'.join(counter.key)}"
            keys += [name, f"{name}:{self._proc}"]
        groups = [
            [part for counter, cost in ask.costs for part in (counters[counter], cost)]
            for ask in asks
        ]
        windows = [self._told(counter) for counter in counters]
        request = {**self._fixed, "windows": windows, "groups": groups}
        return Call(list(counters), asks, keys, request)

    def _take_asks(self, counters: dict[Counter, int]) -> list[Ask]:
        taken: list[Ask] = []
        self.asks = [ask for ask in self.asks if not ask.answer.done()]
        for ask in self.asks[:MOST_GROUPS]:
            fresh = [counter for counter, _ in ask.costs if counter not in counters]
            if taken and len(counters) + len(fresh) > MOST_WINDOWS:
                break
            for counter in fresh:
                counters[counter] = len(counters)
            taken.append(ask)
        self.asks = self.asks[len(taken) :]
        return taken

    def _take_waiting(self, waiting: set[Counter], counters: dict[Counter, int]) -> None:
        while waiting and len(counters) < MOST_WINDOWS:
            counter = waiting.pop()
            if counter.dirty or counter.resend or self._ahead(counter):
                counters.setdefault(counter, len(counters))

    def _told(self, counter: Counter) -> list[int]:
        window = counter.window
        ahead = self._ahead(counter)
        told = [counter.limit, window.width_ms, window.span, ahead, int(counter.resend)]
        if counter.dirty or counter.resend:
            for slot, claim in (counter.claimed or {}).items():
                told += [slot, claim]
            if window.width_ms == HELD and not counter.claimed:
                told += [0, 0]
        counter.dirty = counter.resend = False
        counter.spent = 0
        return told

    def _ahead(self, counter: Counter) -> int:
        """What is worth leasing: twice what was used since the last call, less what is left."""
        if not self.replicas:
            return 0
        most = counter.limit // (LEASED_PART * self.replicas)
        lease = counter.lease(self._book.moment(counter.window))
        return max(0, min(most, 2 * counter.spent) - lease)


def give_up(asks: list[Ask]) -> None:
    """Answer requests that Redis will not answer."""
    for ask in asks:
        if not ask.answer.done():
            ask.answer.set_result(None)
