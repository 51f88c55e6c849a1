"""When a line of a batch may run: on what the engines have left over.

A line gets a seat only while nobody waits in the model's engines, and people who come find
seats free. When they find none all the same, the youngest lines give theirs back and start
again later. Engines run lines behind everybody else (GenerateRequest.priority); this module
sees to it that little is running already when somebody comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gateway.control.fleet import Fleet, Pool
from gateway.lifecycle import Lifecycle

T = TypeVar("T")

TICK_S = 0.02
# How long after the last request of others seats are still kept for the next one.
QUIET_S = 1.0
# Of the engines' seats, what lines may take while others are served, and what they leave
# when they are alone.
BUSY_SHARE = 4
RESERVE_SHARE = 8
# Beyond this share of KV memory in use, lines wait.
MOST_KV = 0.8
# Seats given at once, before the load is looked at again.
BURST = 4
# Looks at the load that must find somebody waiting before a line is sent away: its own
# arrival shows for a moment as well.
PATIENCE = 3


class SentAway(Exception):
    """The seat was needed for somebody else; the line runs later, from its beginning."""


@dataclass(slots=True, eq=False)
class Seat:
    """The right to run one line now."""

    task: asyncio.Task[Any] | None = None

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``. Raises SentAway, once everything it held has been freed."""
        task: asyncio.Task[T] = asyncio.create_task(work)
        self.task = task
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait({task})
            raise
        if task.cancelled():
            raise SentAway
        return task.result()


@dataclass(slots=True)
class Demand:
    """What lines want of one model.

    Attributes:
        waiting: who is given the next seat, first come first served.
        seats: taken ones, oldest first.
        crowded: looks at the load in a row that found others waiting.
    """

    waiting: deque[asyncio.Future[Seat]] = field(default_factory=deque)
    seats: list[Seat] = field(default_factory=list)
    crowded: int = 0


@dataclass(frozen=True, slots=True)
class Room:
    """The load of a model's ready engines, taken together."""

    seats: int
    running: int
    waiting: int
    kv_share: float

    @property
    def full(self) -> bool:
        """Whether a newcomer has to wait for somebody to leave."""
        return self.running >= self.seats or self.kv_share >= MOST_KV


class Pacer:
    """Gives seats to lines. Owned by the event loop.

    Args:
        most: bound on lines that run at once, whatever the engines could take.
    """

    def __init__(self, lifecycle: Lifecycle, most: int) -> None:
        self._lifecycle = lifecycle
        self._most = most
        self._demands: dict[str, Demand] = {}
        self._wake = asyncio.Event()
        self._busy_until = 0.0

    @property
    def running(self) -> int:
        """Lines that have a seat."""
        return sum(len(demand.seats) for demand in self._demands.values())

    @property
    def waiting(self) -> int:
        """Lines that wait for a seat."""
        return sum(len(demand.waiting) for demand in self._demands.values())

    @asynccontextmanager
    async def seat(self, model: str | None) -> AsyncIterator[Seat]:
        """A seat at the model, after however long a wait."""
        demand = self._demands.setdefault(self._name(model), Demand())
        future: asyncio.Future[Seat] = asyncio.get_running_loop().create_future()
        demand.waiting.append(future)
        self._wake.set()
        try:
            seat = await future
        except asyncio.CancelledError:
            if not future.cancelled():
                demand.seats.remove(future.result())
            elif future in demand.waiting:
                demand.waiting.remove(future)
            raise
        try:
            yield seat
        finally:
            demand.seats.remove(seat)
            self._wake.set()

    async def run(self) -> None:
        """Look at the load and act on it, as long as lines want anything."""
        while True:
            if not any(demand.waiting or demand.seats for demand in self._demands.values()):
                self._wake.clear()
                await self._wake.wait()
            self._look()
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._wake.wait()

    def _look(self) -> None:
        lifecycle = self._lifecycle
        if lifecycle.draining or lifecycle.fleet is None:
            return
        taken = self.running
        others = lifecycle.metrics.in_flight > taken
        if others:
            self._busy_until = time.monotonic() + QUIET_S
        for pool in pools_of(lifecycle.fleet):
            demand = self._demands.get(pool.names[0])
            room = room_of(pool)
            if demand is not None and room is not None:
                self._send_away(demand, room, others=others)
                taken += self._give(demand, room, taken)

    def _send_away(self, demand: Demand, room: Room, *, others: bool) -> None:
        crowded = others and room.waiting > 0 and room.full and bool(demand.seats)
        demand.crowded = demand.crowded + 1 if crowded else 0
        if demand.crowded >= PATIENCE:
            demand.crowded = 0
            for seat in reversed(demand.seats):
                if seat.task is not None and not seat.task.cancelling():
                    seat.task.cancel()
                    return

    def _give(self, demand: Demand, room: Room, taken: int) -> int:
        """Seat who may be seated; returns how many."""
        if room.waiting or (room.running and room.kv_share >= MOST_KV):
            return 0
        busy = time.monotonic() < self._busy_until
        free = min(allowed(room.seats, busy=busy) - len(demand.seats), self._most - taken)
        given = 0
        for _ in range(min(free, BURST, len(demand.waiting))):
            future = demand.waiting.popleft()
            if not future.done():
                seat = Seat()
                demand.seats.append(seat)
                future.set_result(seat)
                given += 1
        return given

    def _name(self, model: str | None) -> str:
        """The model's first name, under which its lines wait together."""
        fleet = self._lifecycle.fleet
        for pool in pools_of(fleet) if fleet is not None else ():
            if model is None or model in pool.names:
                return pool.names[0]
        return model or ""


def pools_of(fleet: Fleet) -> list[Pool]:
    """Every model that a line can ask for by name, the fallback with them."""
    return fleet.pools if fleet.fallback is None else [*fleet.pools, Pool([fleet.fallback])]


def allowed(seats: int, *, busy: bool) -> int:
    """How many of an engine's seats lines may take: one at least, or they would never end."""
    if busy:
        return max(1, seats // BUSY_SHARE)
    return max(1, seats - max(1, seats // RESERVE_SHARE))


def room_of(pool: Pool) -> Room | None:
    """The load of a model's ready engines, or None when there is none."""
    loads = pool.loads()
    if not loads:
        return None
    kv_total = sum(load.kv_total for load in loads)
    return Room(
        seats=sum(load.max_running for load in loads),
        running=sum(load.running for load in loads),
        waiting=sum(load.waiting for load in loads),
        kv_share=sum(load.kv_used for load in loads) / kv_total if kv_total else 0.0,
    )
