"""The guard of the gate that holds work back until its engine has room."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from gateway.control.admission.lane import Lane, deadline_passed
from gateway.control.admission.policy import Policy, class_of
from gateway.control.admission.stats import AdmissionStats
from gateway.control.admission.ticket import Ticket, blocks_for, cost_of
from gateway.control.gate import Work
from gateway.control.pool import HasLoad, Pool, RemoteRoute

if TYPE_CHECKING:
    from gateway.control.pool import Route

# Engines order what they hold by the epoch of its arrival plus its class's lead. So a class
# goes first, and still nothing waits in an engine behind requests that came much later.
EPOCH_S = 15.0
LEADS = (0, 1, 4)
LEAST_WEIGHT = 1e-3


class Admission:
    """Every engine's lane. Owned by the event loop.

    Attributes:
        policy: in force; may be exchanged at any time, see ``apply``.
        stats: for the metrics.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.stats = AdmissionStats(self.depth)
        self._lanes: WeakKeyDictionary[HasLoad, Lane] = WeakKeyDictionary()

    def hold(self, work: Work) -> Held:
        """Wait for room and hold it; sets ``work.priority`` to what its engine goes by.

        Raises ServerOverloaded when it may not wait, or not any longer; UpstreamUnavailable
        when no server of the model came; DeadlinePassed once its deadline has passed, also while
        it runs; ServerDraining.
        """
        return Held(work, self.lane(work.route), self.policy)

    def refuse_early(self, route: Route | RemoteRoute, priority: int) -> None:
        """Raise ServerOverloaded if the work is sure to be refused, before anything is spent
        on its prompt."""
        self.lane(route).refuse_early(class_of(priority))

    def waiting(self, route: Route | RemoteRoute) -> int:
        """Requests that wait for whoever is to answer."""
        return self.lane(route).controller.waiting

    def lane(self, route: Route | RemoteRoute) -> Lane:
        """The lane of the engine that is to answer."""
        engine = route.engine
        lane = self._lanes.get(engine)
        if lane is None:
            lane = Lane(engine, route.model_id, lambda: self.policy, self.stats)
            self._lanes[engine] = lane
        return lane

    def expect(self, pools: Iterable[Pool]) -> None:
        """Show the queues of models whose requests wait for a first server, which nobody starts
        for a queue that has no metric."""
        for pool in pools:
            if pool.absence.wait_s:
                self.lane(RemoteRoute(pool.names[0], degraded=False, pool=pool))

    def apply(self, policy: Policy) -> None:
        """Go by another policy from now on. Whoever waits already goes on waiting, for the time
        that was granted."""
        self.policy = policy
        for lane in list(self._lanes.values()):
            lane.look()

    def depth(self) -> Counter[tuple[str, int]]:
        """Requests that wait now, by model and index of their class."""
        found: Counter[tuple[str, int]] = Counter()
        for lane in list(self._lanes.values()):
            for rank, queue in enumerate(lane.controller.classes):
                found[lane.model, rank] += queue.waiting
        return found

    def close(self) -> None:
        """Send everybody away who waits: the engines are about to stop."""
        for lane in list(self._lanes.values()):
            lane.close()


class Held:
    """Room in an engine, from entering to leaving, and the deadline in between."""

    __slots__ = ("_lane", "_policy", "_ticket", "_timeout", "_work")

    def __init__(self, work: Work, lane: Lane, policy: Policy) -> None:
        self._work = work
        self._lane = lane
        self._policy = policy
        self._timeout: asyncio.Timeout | None = None

    async def __aenter__(self) -> None:
        work = self._work
        now = time.perf_counter()
        deadline = work.deadline
        ticket = self._ticket = self._ticket_of(now)
        if deadline is not None and deadline <= now:
            self._lane.note_expired(ticket.rank)
            raise deadline_passed("before the model could begin")
        await self._lane.enter(ticket)
        work.used.admission_s = ticket.admitted - now
        work.priority = int(now // EPOCH_S) + LEADS[ticket.rank]
        if deadline is not None:
            self._timeout = asyncio.timeout(max(0.0, deadline - time.perf_counter()))
            await self._timeout.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        work, lane = self._work, self._lane
        used = work.used
        lane.leave(self._ticket, cost_of(used.prompt_tokens, used.completion_tokens))
        if kind is None and work.choices:
            self._learn()
        if self._timeout is not None:
            try:
                await self._timeout.__aexit__(kind, error, trace)
            except TimeoutError:
                raise deadline_passed("before the answer was complete") from error

    def _ticket_of(self, now: float) -> Ticket:
        work, policy = self._work, self._policy
        rank = class_of(work.priority)
        limit = now + self._lane.patience_s(policy.timeout_s[rank])
        own_limit = work.deadline is not None and work.deadline <= limit
        if work.deadline is not None and own_limit:
            limit = work.deadline
        output = self._lane.controller.estimates.output_tokens(
            work.max_tokens, is_capped=work.is_capped
        )
        principal = work.principal
        return Ticket(
            tenant=principal.owner,
            rank=rank,
            weight=max(principal.rights.weight, LEAST_WEIGHT),
            slots=max(1, work.choices),
            # Choices share the blocks of their prompt; each has an output of its own.
            blocks=blocks_for(work.prompt_tokens) + work.choices * blocks_for(output),
            cost=cost_of(work.prompt_tokens, output * work.choices),
            arrived=now,
            limit=limit,
            own_limit=own_limit,
        )

    def _learn(self) -> None:
        work = self._work
        tokens = work.used.completion_tokens / work.choices
        if tokens and work.max_tokens:
            self._lane.controller.estimates.learn_output(
                tokens, work.max_tokens, is_capped=work.is_capped
            )
