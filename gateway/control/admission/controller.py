"""Who runs on one engine and who waits for it. No clocks, tasks or sockets in here.

Room is counted in slots (sequences that run at a time) and blocks of KV memory. The rules, in
the order in which they are applied:

1. Nothing is admitted beyond the engine's room, which includes a little for the engine to queue
   by itself. Only when nothing runs is everything admitted: the engine itself knows best what
   can never fit.
2. Of PROMOTE_EVERY admissions one goes to the request that has waited longest of all, once that
   is longer than ``promote_s``. It may use all room, and while it has none nobody passes it. So a
   request with ``p`` older ones before it runs after at most ``PROMOTE_EVERY * (p + 1)``
   admissions from then on.
3. Otherwise classes go in order. Each leaves free what is kept for the others and not in use;
   behind a class that has to wait, the ones below may still use what is kept for them.
4. Inside a class see ``fair.py``.

When more wait than may, the youngest of the tenant with the most waiting requests in the lowest
class is sent away, so that a flood crowds out itself only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from engine.base import Load
from gateway.control.admission.estimates import Estimates
from gateway.control.admission.fair import ClassQueue
from gateway.control.admission.policy import Policy
from gateway.control.admission.ticket import BLOCK_TOKENS, Ticket, blocks_for
from gateway.control.rights import CLASSES

PROMOTE_EVERY = 4
# How long room is kept for a class after its last request.
IN_USE_S = 60.0
UNBOUNDED = 1 << 60

Reason = Literal["queue_full", "displaced", "expected_wait"]


class Room(NamedTuple):
    """What an engine has for admitted requests, by its last report.

    Attributes:
        slots, blocks: in all. used_blocks: filled now, whoever fills them.
        kept: slots and blocks kept for each class that is in use.
    """

    slots: int
    blocks: int
    used_blocks: int
    kept: tuple[tuple[int, int], ...]

    def most(self, rank: int) -> tuple[int, int]:
        """What a class may fill when nobody else is there."""
        slots, blocks = self.slots, self.blocks
        for other, (kept_slots, kept_blocks) in enumerate(self.kept):
            if other != rank:
                slots -= kept_slots
                blocks -= kept_blocks
        return max(1, slots), max(1, blocks)


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that must go, and why."""

    ticket: Ticket
    reason: Reason


class Controller:
    """Every request of one engine, waiting and running.

    Args:
        load: the engine's report.
        policy: answers the policy in force.

    Attributes:
        held: requests that run.
        held_slots, held_blocks: what these are accounted with.
        waiting: requests that wait here.
        closed: answers whether nothing can be admitted to now, and will be again.
    """

    def __init__(self, load: Callable[[], Load], policy: Callable[[], Policy]) -> None:
        self._load = load
        self._policy = policy
        self.closed: Callable[[], bool] = lambda: False
        self.estimates = Estimates()
        self.classes = tuple(ClassQueue() for _ in CLASSES)
        self.held = 0
        self.held_slots = 0
        self.held_blocks = 0
        self._arrivals: OrderedDict[Ticket, None] = OrderedDict()
        self._passed = 0  # admissions since the last one by age

    @property
    def waiting(self) -> int:
        """Requests that wait here."""
        return len(self._arrivals)

    def enter(self, ticket: Ticket, now: float) -> bool:
        """Admit a request at once if nobody waits and there is room."""
        queue = self.classes[ticket.rank]
        queue.seen = now
        if self._arrivals or self.closed():
            return False
        room = self._room(now)
        if room is not None and not self._fits_beside_kept(ticket, room):
            return False
        self._grant(ticket, room, now)
        return True

    def queue(self, ticket: Ticket, now: float) -> tuple[list[Ticket], Refusal | None]:
        """Have a request wait. Returns who is admitted now, and who has to go for it."""
        ticket.state = "waiting"
        self.classes[ticket.rank].add(ticket)
        self._arrivals[ticket] = None
        admitted = self.admit(now)
        refused = None
        if ticket.state == "waiting":
            refused = self._refusal(ticket, now)
            if refused is not None:
                self.leave(refused.ticket)
        return admitted, refused

    def tickets(self) -> list[Ticket]:
        """Those that wait, the oldest first."""
        return list(self._arrivals)

    def is_full_for(self, rank: int) -> bool:
        """Whether a request of this class would be refused whoever sends it."""
        policy = self._policy()
        return (
            self.waiting >= self._bound(policy)
            and all(queue.waiting == 0 for queue in self.classes[rank + 1 :])
            and all(len(flow.waiting) == 1 for flow in self.classes[rank].active.values())
        )

    def admit(self, now: float) -> list[Ticket]:
        """Admit whoever waits and may run now."""
        admitted: list[Ticket] = []
        while self._arrivals and not self.closed():
            room = self._room(now)
            ticket = self._next(room, now)
            if ticket is None:
                break
            if ticket is next(iter(self._arrivals)):
                self._passed = -1
            self._drop(ticket)
            self._grant(ticket, room, now)
            admitted.append(ticket)
        return admitted

    def leave(self, ticket: Ticket) -> None:
        """Forget a waiting request."""
        self._drop(ticket)
        ticket.state = "over"

    def release(self, ticket: Ticket, now: float, cost: float) -> None:
        """Take back what a running request held; ``cost`` is what it came to."""
        ticket.state = "over"
        self.held -= 1
        self.held_slots -= ticket.held_slots
        self.held_blocks -= ticket.held_blocks
        self.classes[ticket.rank].settle(ticket, cost)
        if cost:
            self.estimates.service_s.add(now - ticket.admitted)

    def wait_s(self, ticket: Ticket) -> float | None:
        """How long a waiting request is expected to wait; None while that is not known."""
        if self.closed():
            return None
        before = sum(queue.waiting for queue in self.classes[: ticket.rank])
        return self.estimates.wait_s(
            before + self.classes[ticket.rank].served_before(ticket), self.held
        )

    def retry_after(self) -> int:
        """Seconds after which a refused request may come again."""
        return self.estimates.retry_after(self.waiting, self.held)

    def _bound(self, policy: Policy) -> int:
        """Requests that may wait here, those apart that wait in the engine's own queue."""
        return max(0, policy.max_queue - policy.extra_slots(self._load().max_running))

    def _refusal(self, ticket: Ticket, now: float) -> Refusal | None:
        wait = self.wait_s(ticket)
        if wait is not None and now + wait > ticket.limit:
            return Refusal(ticket, "expected_wait")
        policy = self._policy()
        queue = self.classes[ticket.rank]
        if queue.waiting > policy.class_queue[ticket.rank]:
            victim = self._victim((queue,), ticket, now - policy.promote_s)
        elif self.waiting > self._bound(policy):
            below = tuple(reversed(self.classes[ticket.rank :]))
            victim = self._victim(below, ticket, now - policy.promote_s)
        else:
            return None
        return Refusal(victim, "queue_full" if victim is ticket else "displaced")

    def _victim(self, queues: tuple[ClassQueue, ...], ticket: Ticket, youngest: float) -> Ticket:
        """Who goes: of the first class in which somebody can. Whoever is due by age stays."""
        for queue in queues:
            flow = queue.longest(ticket, youngest)
            if flow is not None:
                return flow.tail
        return ticket

    def _next(self, room: Room | None, now: float) -> Ticket | None:
        """Who is admitted next, if anybody."""
        oldest = next(iter(self._arrivals))
        if room is None:
            return oldest
        if now - oldest.arrived >= self._policy().promote_s and self._passed + 1 >= PROMOTE_EVERY:
            return oldest if self._fits(oldest, room) else None
        behind = False
        for queue in self.classes:
            if not queue.active:
                continue
            ticket = queue.head()
            if self._fits_in_kept(ticket, room) if behind else self._fits_beside_kept(ticket, room):
                return ticket
            behind = True
        return None

    def _grant(self, ticket: Ticket, room: Room | None, now: float) -> None:
        self._passed = min(self._passed + 1, PROMOTE_EVERY)
        slots, blocks = (UNBOUNDED, UNBOUNDED) if room is None else room.most(ticket.rank)
        ticket.held_slots = min(ticket.slots, slots)
        ticket.held_blocks = min(ticket.blocks, blocks)
        ticket.state = "held"
        ticket.admitted = now
        self.held += 1
        self.held_slots += ticket.held_slots
        self.held_blocks += ticket.held_blocks
        self.classes[ticket.rank].serve(ticket)

    def _drop(self, ticket: Ticket) -> None:
        del self._arrivals[ticket]
        self.classes[ticket.rank].drop(ticket)

    def _room(self, now: float) -> Room | None:
        """The engine's room; None when it has none to speak of: it is down, and says so itself
        to whoever comes."""
        load = self._load()
        if load.max_running <= 0:
            return None
        policy = self._policy()
        slots = load.max_running + policy.extra_slots(load.max_running)
        blocks = UNBOUNDED
        if load.kv_total:
            blocks = int(load.kv_total * (1 + policy.overcommit)) // BLOCK_TOKENS
        kept = []
        for queue, share in zip(self.classes, policy.shares, strict=True):
            share_slots = int(slots * share) if now - queue.seen < IN_USE_S else 0
            share_blocks = int(blocks * share) if share_slots and load.kv_total else 0
            kept.append((share_slots, share_blocks))
        return Room(slots, blocks, blocks_for(load.kv_used), tuple(kept))

    def _free(self, room: Room) -> tuple[int, int]:
        used = max(self.held_blocks, room.used_blocks)
        return room.slots - self.held_slots, room.blocks - used

    def _fits(self, ticket: Ticket, room: Room) -> bool:
        """Whether there is room, whatever is kept for whom."""
        slots, blocks = self._free(room)
        most_slots, most_blocks = room.most(ticket.rank)
        return not self.held or (
            min(ticket.slots, most_slots) <= slots and min(ticket.blocks, most_blocks) <= blocks
        )

    def _fits_beside_kept(self, ticket: Ticket, room: Room) -> bool:
        """Whether there is room besides what is kept for other classes and not in use."""
        if not self.held:
            return True
        slots, blocks = self._free(room)
        for rank, (kept_slots, kept_blocks) in enumerate(room.kept):
            if rank != ticket.rank and kept_slots:
                queue = self.classes[rank]
                slots -= max(0, kept_slots - queue.held_slots)
                blocks -= max(0, kept_blocks - queue.held_blocks)
        # A request larger than all that is not kept runs when all of that is free.
        most_slots, most_blocks = room.most(ticket.rank)
        return min(ticket.slots, most_slots) <= slots and min(ticket.blocks, most_blocks) <= blocks

    def _fits_in_kept(self, ticket: Ticket, room: Room) -> bool:
        """Whether there is room in what is kept for its own class."""
        queue = self.classes[ticket.rank]
        kept_slots, kept_blocks = room.kept[ticket.rank]
        slots, blocks = self._free(room)
        within = ticket.slots <= kept_slots - queue.held_slots and (
            not kept_blocks or ticket.blocks <= kept_blocks - queue.held_blocks
        )
        return within and ticket.slots <= slots and ticket.blocks <= blocks
