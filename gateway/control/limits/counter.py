"""What one holder used of one limit."""

from __future__ import annotations

from gateway.control.limits.windows import FOREVER_MS, HELD, Window

Key = tuple[str, str, str]

# Nobody can know when somebody else's request ends; this is a hint.
HELD_HINT_MS = 1000


class Counter:
    """Use per slot, and what the shared store has been told of it.

    ``claimed`` is what the store counts for this process; it is never below ``used``. What is
    claimed and not used is a lease: it can be used without asking.

    Attributes:
        key: scope (``key``, ``project``, ``organisation``, ``model``), its name, and the field
            of ``Limits``.
        dirty: ``claimed`` changed since the store was told.
        resend: the store may count anything for this process; tell it everything.
        room: what the store had left when it last answered.
        lease_until_ms: when an unused lease goes back.
        spent: used through leases since the last answer, which tells how much is worth leasing.
    """

    __slots__ = (
        "_blocked_cost",
        "_blocked_end_ms",
        "_blocked_until_ms",
        "_oldest",
        "_reach",
        "_sum",
        "claimed",
        "dirty",
        "key",
        "lease_until_ms",
        "limit",
        "resend",
        "room",
        "spent",
        "used",
        "window",
    )

    def __init__(self, key: Key, window: Window, limit: int) -> None:
        self.key = key
        self.window = window
        self.limit = limit
        self.used: dict[int, int] = {}
        self.claimed: dict[int, int] = {}
        self.dirty = False
        self.resend = False
        self.room = limit
        self.lease_until_ms = 0
        self.spent = 0
        self._sum = 0
        self._oldest = FOREVER_MS
        # Of the calendar the last period is kept: the wall clock may be set back over midnight.
        self._reach = window.span if window.is_calendar else window.span - 1
        self._blocked_cost = 0
        self._blocked_until_ms = self._blocked_end_ms = 0

    def total(self, now_ms: int) -> int:
        """Used by this process in the window that ends now."""
        self.expire(now_ms)
        if self.window.is_calendar:
            return self.used.get(self.window.slot(now_ms), 0)
        return self._sum

    def wait_ms(self, now_ms: int, cost: int, cap: int) -> int | None:
        """How long until ``cost`` fits under ``cap`` if nobody uses more; None is never."""
        if cost > cap:
            return None
        over = self.total(now_ms) + cost - cap
        if over <= 0:
            return 0
        if self.window.width_ms == HELD:
            return HELD_HINT_MS
        if self.window.is_calendar:
            return self.window.end_ms(self.window.slot(now_ms)) - now_ms
        end = now_ms
        for slot in sorted(self.used):
            over -= self.used[slot]
            end = self.window.end_ms(slot)
            if over <= 0:
                break
        return end - now_ms

    def add(self, slot: int, amount: int) -> None:
        """Use so much more, and claim it."""
        self.used[slot] = self.used.get(slot, 0) + amount
        self.claimed[slot] = self.claimed.get(slot, 0) + amount
        self._sum += amount
        if slot < self._oldest:
            self._oldest = slot
        self.dirty = True

    def give_back(self, slot: int, amount: int) -> None:
        """Use so much less, unless the slot does not count any more."""
        if slot in self.used:
            self.add(slot, -amount)
            if self.window.width_ms == HELD and not self.used[slot] and not self.claimed[slot]:
                del self.used[slot], self.claimed[slot]

    def lease(self, now_ms: int) -> int:
        """What can be used without asking."""
        self.expire(now_ms)
        if not self.lease_until_ms:
            return 0
        if self.window.is_calendar:
            slot = self.window.slot(now_ms)
            return self.claimed.get(slot, 0) - self.used.get(slot, 0)
        return sum(self.claimed.values()) - self._sum

    def spend(self, now_ms: int, cost: int) -> list[tuple[int, int]]:
        """Use ``cost`` of the lease, which must cover it; returns how much in which slots."""
        self.spent += cost
        slots = [self.window.slot(now_ms)] if self.window.is_calendar else sorted(self.claimed)
        pieces = []
        for slot in slots:
            amount = min(cost, self.claimed[slot] - self.used.get(slot, 0))
            if amount > 0:
                self.used[slot] = self.used.get(slot, 0) + amount
                self._sum += amount
                cost -= amount
                pieces.append((slot, amount))
            if not cost:
                break
        return pieces

    def spend_at(self, slot: int, cost: int) -> None:
        """Use ``cost`` of what has just been granted in a slot."""
        self.spent += cost
        self.used[slot] = self.used.get(slot, 0) + cost
        self._sum += cost

    def grant(self, slot: int, amount: int, until_ms: int) -> None:
        """The store counts so much more for this process."""
        if amount:
            self.claimed[slot] = self.claimed.get(slot, 0) + amount
            self.used.setdefault(slot, 0)
            self._oldest = min(self._oldest, slot)
            self.lease_until_ms = until_ms

    def drop_lease(self) -> None:
        """Claim only what is used."""
        self.lease_until_ms = 0
        if self.claimed != self.used:
            self.claimed = dict(self.used)
            self.dirty = True

    def block(self, now_ms: int, cost: int, wait_ms: int, for_ms: int) -> None:
        """Remember for a moment that the store refused ``cost``."""
        self._blocked_cost = cost
        self._blocked_end_ms = now_ms + wait_ms
        self._blocked_until_ms = now_ms + min(wait_ms, for_ms)

    def blocked_ms(self, now_ms: int, cost: int) -> int:
        """The wait for ``cost`` that the store told a moment ago; 0 when it has to be asked."""
        if now_ms >= self._blocked_until_ms or cost < self._blocked_cost:
            return 0
        return self._blocked_end_ms - now_ms

    def expire(self, now_ms: int) -> None:
        """Forget the slots that do not count any more."""
        first = self.window.slot(now_ms) - self._reach
        if self._oldest >= first or self.window.width_ms == HELD:
            return
        for slot in [slot for slot in self.used if slot < first]:
            self._sum -= self.used.pop(slot)
            self.claimed.pop(slot, None)
        self._oldest = min(self.used, default=FOREVER_MS)

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost with it, once it has been expired."""
        return not self.dirty and not any(self.used.values()) and self.claimed == self.used
