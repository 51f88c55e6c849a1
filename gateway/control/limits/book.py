"""Every counter of this process, and taking from several of them at once or from none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.control.limits.clock import Clock
from gateway.control.limits.counter import Counter, Key
from gateway.control.limits.windows import HELD, Window

# Counters that hold nothing are forgotten beyond so many.
MOST_COUNTERS = 10_000

Costs = list[tuple[Counter, int]]
# As sliding windows count time, and as the calendar does: indexed by ``Window.is_calendar``.
Now = tuple[int, int]


@dataclass(slots=True)
class Hold:
    """What one request took of one counter.

    Attributes:
        pieces: amounts by slot.
    """

    counter: Counter
    cost: int
    pieces: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The limit that was in the way for longest.

    Attributes:
        limit: or this replica's share of it. used: of it, by everybody who is known of.
        wait_ms: until the request fits if nobody else uses any; None is never.
    """

    counter: Counter
    cost: int
    limit: int
    used: int
    wait_ms: int | None


class Book:
    """Owned by the event loop.

    Attributes:
        is_shared: there is a shared store, which has to be told.
        leased: only what the shared store has granted may be used.
        share: replicas among which every limit is divided; 1 without a shared store.
        first_use: what has been used by earlier processes, by counter and slot.
    """

    def __init__(
        self,
        clock: Clock,
        first_use: Callable[[Key], dict[int, int]] = lambda key: {},
    ) -> None:
        self.clock = clock
        self.is_shared = False
        self.leased = False
        self.share = 1
        self.first_use = first_use
        self.counters: dict[Key, Counter] = {}
        self._prune_at = MOST_COUNTERS

    def counter(self, key: Key, window: Window, limit: int) -> Counter:
        """The counter of a holder, with its limit as it is now."""
        found = self.counters.get(key)
        if found is None:
            if len(self.counters) >= self._prune_at:
                self._prune()
            found = self.counters[key] = Counter(key, window, limit)
            for slot, amount in self.first_use(key).items():
                found.add(slot, amount)
        found.limit = limit
        return found

    def now(self) -> Now:
        """The clock is read once for all the counters of a request."""
        return self.clock.now_ms(), self.clock.calendar_ms()

    def moment(self, window: Window) -> int:
        """Now, as this kind of window counts time."""
        return self.clock.calendar_ms() if window.is_calendar else self.clock.now_ms()

    def reserve(self, costs: Costs) -> list[Hold] | Refusal | None:
        """Take all or nothing; None when only the shared store can tell.

        Without it, or while it is lost, the limit's share is what may be used.
        """
        worst: Refusal | None = None
        short = False
        moments = self.now()
        for counter, cost in costs:
            now = moments[counter.window.is_calendar]
            if self.leased and cost <= counter.limit:
                covered = counter.lease(now) >= cost
                short = short or not covered
                wait: int | None = 0 if covered else counter.blocked_ms(now, cost)
            else:
                wait = counter.wait_ms(now, cost, self.cap(counter, cost))
            if wait == 0:
                continue
            if worst is None or longer(wait, worst.wait_ms):
                limit = counter.limit if self.leased else self.cap(counter, cost)
                worst = Refusal(counter, cost, limit, self.total(counter, moments), wait)
        if worst is not None:
            return worst
        if short:
            return None
        return [
            self._take(counter, cost, moments[counter.window.is_calendar])
            for counter, cost in costs
        ]

    def cap(self, counter: Counter, cost: int) -> int:
        """What this process may use without asking. A request that is larger than the share,
        yet within the limit, may run where nothing else was used."""
        limit = counter.limit
        if self.share == 1 or cost > limit:
            return limit
        return max(limit // self.share, cost, 1)

    def total(self, counter: Counter, moments: Now) -> int:
        """Used by everybody, as far as this process knows."""
        now = moments[counter.window.is_calendar]
        if self.leased:
            return max(0, counter.limit - counter.room - max(0, counter.lease(now)))
        return counter.total(now)

    def remaining(self, counter: Counter, moments: Now) -> int:
        """What is left of the limit, or of this process's share of it."""
        limit = counter.limit if self.leased else self.cap(counter, 0)
        return max(0, limit - self.total(counter, moments))

    def reset_ms(self, counter: Counter, moments: Now) -> int:
        """How long until the whole limit is there again if nobody uses any."""
        window = counter.window
        if window.width_ms == HELD or not self.total(counter, moments):
            return 0
        now = moments[window.is_calendar]
        return max(0, window.end_ms(max(counter.used, default=window.slot(now))) - now)

    def settle(self, holds: list[Hold], actual: Callable[[Hold], int]) -> None:
        """Replace what was taken by what was used; what nobody used goes back."""
        for hold in holds:
            counter = hold.counter
            excess = hold.cost - actual(hold)
            if excess < 0:
                counter.add(counter.window.slot(self.moment(counter.window)), -excess)
            for slot, amount in reversed(hold.pieces):
                if excess <= 0:
                    break
                counter.give_back(slot, min(excess, amount))
                excess -= amount

    def _take(self, counter: Counter, cost: int, now: int) -> Hold:
        if self.leased:
            return Hold(counter, cost, counter.spend(now, cost))
        slot = counter.window.slot(now)
        counter.add(slot, cost)
        return Hold(counter, cost, [(slot, cost)])

    def _prune(self) -> None:
        for key, counter in list(self.counters.items()):
            counter.expire(self.moment(counter.window))
            if counter.idle or (not self.is_shared and not any(counter.used.values())):
                del self.counters[key]
        self._prune_at = max(MOST_COUNTERS, 2 * len(self.counters))


def longer(wait: int | None, than: int | None) -> bool:
    """Whether one wait is longer than another; None is for ever."""
    return than is not None and (wait is None or wait > than)
