"""The waiting itself: futures, time limits and the event loop around one Controller."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

from engine.base import Load
from gateway.control.admission.controller import Controller, Refusal
from gateway.control.admission.policy import Policy
from gateway.control.admission.stats import AdmissionStats
from gateway.control.admission.ticket import Ticket
from gateway.control.pool import HasLoad, Pool
from gateway.errors import (
    DeadlinePassed,
    GatewayError,
    ServerDraining,
    ServerOverloaded,
    UpstreamUnavailable,
)

# While somebody waits, the engine's load is looked at this often: the gateway has no hand in
# everything that makes room.
LOOK_EVERY_S = 0.05
NOTHING = Load(0, 0, 0, 0, 0)


@runtime_checkable
class HoldsBack(Protocol):
    """An engine that counts what waits for it elsewhere into its own load."""

    held_back: int


class Lane:
    """Requests of one engine. Owned by the event loop; times are ``time.perf_counter()``.

    Args:
        model: for metrics.
    """

    def __init__(
        self, engine: HasLoad, model: str, policy: Callable[[], Policy], stats: AdmissionStats
    ) -> None:
        self.model = model
        self._engine = weakref.ref(engine)
        self._absence = engine.absence if isinstance(engine, Pool) else None
        self.controller = Controller(self._load, policy)
        self.controller.closed = self._closed
        self._stats = stats
        self._look: asyncio.TimerHandle | None = None

    async def enter(self, ticket: Ticket) -> None:
        """Return when the request may run.

        Raises ServerOverloaded, DeadlinePassed once the time of ``ticket`` is over,
        UpstreamUnavailable when no server came in that time, or ServerDraining.
        """
        if not self.controller.enter(ticket, ticket.arrived):
            await self._wait(ticket)
        if self._absence is not None:
            self._absence.end(ticket.admitted)
        self._stats.note_wait(self.model, ticket.rank, ticket.admitted - ticket.arrived)

    def leave(self, ticket: Ticket, cost: float) -> None:
        """Give back what a running request held; ``cost`` is what it came to."""
        now = time.perf_counter()
        self.controller.release(ticket, now, cost)
        if self.controller.waiting:
            self._admit(now)

    def patience_s(self, usual_s: float) -> float:
        """How long a request that comes now may wait: ``usual_s``, or until a server is there."""
        absence = self._absence
        return absence.wait_s if absence is not None and absence.lasts else usual_s

    def refuse_early(self, rank: int) -> None:
        """Raise ServerOverloaded for a request that could not even wait, whoever sends it."""
        controller = self.controller
        if controller.waiting and controller.is_full_for(rank):
            self._stats.shed[rank, "queue_full"] += 1
            raise self._overloaded("its waiting queue is full")

    def note_expired(self, rank: int) -> None:
        """Count a request whose time was over when it came."""
        self._stats.shed[rank, "deadline"] += 1

    def look(self) -> None:
        """Admit whoever may run by what is known now."""
        if self.controller.waiting:
            self._admit(time.perf_counter())

    def close(self) -> None:
        """Send everybody away who waits."""
        for ticket in self.controller.tickets():
            error = ServerDraining("The server is shutting down. Please retry on another one.")
            self._end(ticket, error)
        self._show()

    async def _wait(self, ticket: Ticket) -> None:
        loop = asyncio.get_running_loop()
        ticket.future = loop.create_future()
        now = time.perf_counter()
        if self._absence is not None and self._absence.lasts:
            self._absence.begin(now)
        admitted, refusal = self.controller.queue(ticket, now)
        self._wake(admitted)
        if refusal is not None:
            self._refuse(refusal)
        if ticket.state == "waiting":
            ticket.timer = loop.call_later(ticket.limit - now, self._expire, ticket)
            self._keep_looking()
        self._show()
        try:
            await ticket.future
        except BaseException:
            if ticket.state == "waiting":
                self.controller.leave(ticket)
                self._admit(time.perf_counter())
            elif ticket.state == "held":
                self.leave(ticket, 0.0)
            if ticket.future.done() and not ticket.future.cancelled():
                ticket.future.exception()  # else asyncio logs that nobody took it
            raise
        finally:
            if ticket.timer is not None:
                ticket.timer.cancel()

    def _admit(self, now: float) -> None:
        self._wake(self.controller.admit(now))
        self._show()

    def _wake(self, admitted: Iterable[Ticket]) -> None:
        for ticket in admitted:
            if ticket.future is not None and not ticket.future.done():
                ticket.future.set_result(None)

    def _refuse(self, refusal: Refusal) -> None:
        ticket, reason = refusal.ticket, refusal.reason
        self._stats.shed[ticket.rank, reason] += 1
        if reason == "expected_wait":
            left = ticket.limit - time.perf_counter()
            why = f"the request would wait longer than the {left:.3g} s that are left for it"
        else:
            why = "its waiting queue is full"
        self._fail(ticket, self._overloaded(why))

    def _expire(self, ticket: Ticket) -> None:
        """End a wait whose time is over."""
        if ticket.state != "waiting":
            return
        self._stats.shed[ticket.rank, "deadline" if ticket.own_limit else "queue_timeout"] += 1
        if ticket.own_limit:
            self._end(ticket, deadline_passed("before the model could begin"))
        else:
            self._end(ticket, self._too_late(time.perf_counter() - ticket.arrived))
        self._admit(time.perf_counter())

    def _end(self, ticket: Ticket, error: GatewayError) -> None:
        self.controller.leave(ticket)
        self._fail(ticket, error)

    def _fail(self, ticket: Ticket, error: GatewayError) -> None:
        if ticket.future is not None and not ticket.future.done():
            ticket.future.set_exception(error)

    def _too_late(self, waited: float) -> GatewayError:
        if not self._closed():
            return self._overloaded(f"nothing became free within {waited:.3g} s")
        after = self._retry_after()
        return UpstreamUnavailable(
            f"No server of '{self.model}' came up within {waited:.3g} s. "
            f"Please retry in {after} s.",
            retry_after=after,
        )

    def _retry_after(self) -> int:
        if self._absence is not None and self._absence.lasts:
            return self._absence.retry_after(time.perf_counter())
        return self.controller.retry_after()

    def _overloaded(self, why: str) -> ServerOverloaded:
        after = self._retry_after()
        return ServerOverloaded(
            f"The server is overloaded: {why}. Please retry in {after} s.", retry_after=after
        )

    def _keep_looking(self) -> None:
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._on_look)

    def _on_look(self) -> None:
        self._look = None
        if self.controller.waiting:
            self._admit(time.perf_counter())
        if self.controller.waiting:
            self._keep_looking()

    def _show(self) -> None:
        """Have the engine's load say how many wait for it here."""
        engine: object = self._engine()
        if isinstance(engine, HoldsBack):
            engine.held_back = self.controller.waiting

    def _closed(self) -> bool:
        return self._absence is not None and self._absence.lasts

    def _load(self) -> Load:
        engine = self._engine()
        return NOTHING if engine is None else engine.load()


def deadline_passed(when: str) -> DeadlinePassed:
    """The error for a request whose own time is over."""
    return DeadlinePassed(
        f"The time that x-request-timeout allows was over {when}. "
        "Allow more, or retry when the server is less busy."
    )
