"""Whose turn it is inside a class: fair by tokens served, first come first served per tenant.

Start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with the tokens of a request as
its length: a tenant's virtual time grows by tokens divided by weight, and the waiting tenant
that is furthest behind goes next. Output is charged as an estimate and corrected by what was
really made, and a tenant that comes back from a pause does not bring credit along; both are
the Virtual Token Counter of "Fairness in Serving Large Language Models" (Sheng et al.,
OSDI 2024).
"""

from __future__ import annotations

import math
from collections import OrderedDict

from gateway.control.admission.ticket import Ticket

# Tenants remembered although nothing of theirs waits or runs.
IDLE_FLOWS = 1024


class Flow:
    """The requests of one tenant in one class.

    Attributes:
        time: virtual time up to which it has been served.
        waiting: in order of arrival.
        held: of its requests, those that run.
    """

    __slots__ = ("held", "tenant", "time", "waiting", "weight")

    def __init__(self, tenant: str, time: float) -> None:
        self.tenant = tenant
        self.time = time
        self.weight = 1.0
        self.held = 0
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()

    @property
    def head(self) -> Ticket:
        """The next one."""
        return next(iter(self.waiting))

    @property
    def tail(self) -> Ticket:
        """The one that came last."""
        return next(reversed(self.waiting))

    @property
    def length(self) -> float:
        """Waiting requests in proportion to what the tenant is entitled to."""
        return len(self.waiting) / self.weight


class ClassQueue:
    """The flows of one class.

    Attributes:
        active: flows of which something waits.
        waiting: requests of all of them.
        held_slots, held_blocks: of running requests.
        seen: when a request of this class last came.
    """

    def __init__(self) -> None:
        self.active: dict[str, Flow] = {}
        self.waiting = 0
        self.held_slots = 0
        self.held_blocks = 0
        self.seen = -math.inf
        self._flows: dict[str, Flow] = {}
        self._time = 0.0

    def head(self) -> Ticket:
        """Whose turn it is; something must be waiting."""
        if len(self.active) == 1:
            return next(iter(self.active.values())).head
        return min(self.active.values(), key=_time_of).head

    def add(self, ticket: Ticket) -> None:
        """Have it wait behind the others of its tenant."""
        flow = self._flow_of(ticket)
        if not flow.waiting:
            flow.time = max(flow.time, self._time)
            self.active[flow.tenant] = flow
        flow.waiting[ticket] = None
        self.waiting += 1

    def drop(self, ticket: Ticket) -> None:
        """Have it wait no longer."""
        flow = ticket.flow
        assert flow is not None
        del flow.waiting[ticket]
        self.waiting -= 1
        if not flow.waiting:
            del self.active[flow.tenant]

    def serve(self, ticket: Ticket) -> None:
        """Charge its tenant for a request that begins to run."""
        flow = ticket.flow or self._flow_of(ticket)
        if not flow.waiting:
            flow.time = max(flow.time, self._time)
        self._time = max(self._time, flow.time)
        flow.time += ticket.cost / ticket.weight
        flow.held += 1
        self.held_slots += ticket.held_slots
        self.held_blocks += ticket.held_blocks

    def settle(self, ticket: Ticket, cost: float) -> None:
        """Correct the charge for a request that has ended by what it really cost."""
        flow = ticket.flow
        assert flow is not None
        flow.time += (cost - ticket.cost) / ticket.weight
        flow.held -= 1
        self.held_slots -= ticket.held_slots
        self.held_blocks -= ticket.held_blocks

    def served_before(self, ticket: Ticket) -> float:
        """About how many requests of this class run before a waiting one: of each tenant as
        many as it has, at most as many as the ticket's own in proportion to the weights."""
        own = ticket.flow
        assert own is not None
        mine = own.length
        return sum(min(flow.length, mine) * flow.weight for flow in self.active.values()) - 1

    def longest(self, newcomer: Ticket, youngest: float) -> Flow | None:
        """The flow with the most waiting requests for its weight; the newcomer's on a tie.

        Only flows whose last request came after ``youngest`` count.
        """
        found: Flow | None = None
        for flow in self.active.values():
            if flow.tail.arrived <= youngest:
                continue
            if (
                found is None
                or flow.length > found.length
                or (flow is newcomer.flow and flow.length == found.length)
            ):
                found = flow
        return found

    def _flow_of(self, ticket: Ticket) -> Flow:
        flow = self._flows.get(ticket.tenant)
        if flow is None:
            if len(self._flows) >= IDLE_FLOWS:
                self._forget_idle()
            flow = self._flows[ticket.tenant] = Flow(ticket.tenant, self._time)
        flow.weight = ticket.weight
        ticket.flow = flow
        return flow

    def _forget_idle(self) -> None:
        self._flows = {t: flow for t, flow in self._flows.items() if flow.waiting or flow.held}


def _time_of(flow: Flow) -> float:
    return flow.time
