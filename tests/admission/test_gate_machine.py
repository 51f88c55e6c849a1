"""Limits and admission together, as requests meet them: whatever comes, leaves, fails or is
reloaded, what both promise holds, and each request is counted once."""

from __future__ import annotations

import asyncio
import math
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

sys.path.append(str(Path(__file__).parents[1] / "limits"))

from limit_tools import PRICES, SetClock

from engine.base import EngineDead, Load
from gateway.control.admission.controller import PROMOTE_EVERY
from gateway.control.admission.guard import Admission
from gateway.control.admission.policy import Policy, priority_of
from gateway.control.gate import Gate, Used, Work
from gateway.control.limits.book import Book
from gateway.control.limits.limiter import Limiter
from gateway.control.limits.table import LimitTable
from gateway.control.rights import CLASSES, Limits, Principal
from gateway.errors import RateLimited, ServerOverloaded

KEYS = ("a", "b", "c")
# Everybody is due by age at once, so the bound on waiting holds from the start.
POLICIES = st.builds(
    Policy,
    max_queue=st.integers(1, 10),
    timeout_s=st.just((3600.0,) * 3),
    shares=st.sampled_from([(0.0, 0.0, 0.0), (0.3, 0.1, 0.1)]),
    overcommit=st.just(0.0),
    promote_s=st.just(0.0),
)
LIMITS = st.builds(
    Limits,
    concurrent_requests=st.sampled_from([None, 1, 3, 6]),
    tokens_per_minute=st.sampled_from([100_000, 500]),
)


class Request:
    """What the machine knows of one.

    Attributes:
        ends: with prompt and output tokens, or an error. began: its engine has it.
        most: requests at a time of its key, by the limits that it passed.
        left: admissions by which it must have begun, while it waits.
        tokens: that it comes to. outcomes: how it ended; one in the end.
    """

    def __init__(self, work: Work, ends: asyncio.Future[tuple[int, int]]) -> None:
        self.work = work
        self.ends = ends
        self.flow = work.principal.id, work.priority
        self.began = False
        self.left = 0
        self.most: int | None = None
        self.tokens = 0
        self.outcomes: list[str] = []
        self.task: asyncio.Task[None] | None = None


class GateMachine(RuleBasedStateMachine):
    """An engine, a limiter and admission behind one gate, on an event loop of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.places = 1
        self.clock = SetClock()
        self.limiter = Limiter(LimitTable(), PRICES, Book(self.clock))
        self.sent: list[Request] = []
        self.waiting: list[Request] = []
        self.running: list[Request] = []

    @initialize(policy=POLICIES, limits=LIMITS, places=st.integers(1, 4))
    def begin(self, policy: Policy, limits: Limits, places: int) -> None:
        self.admission = Admission(policy)
        self.engine = EngineOf(self)
        self.route: Any = SimpleNamespace(engine=self.engine, model_id="m")
        self.gate = Gate((self.limiter, self.admission))
        self.places = places
        self.reload_limits(limits)

    @rule(
        key=st.sampled_from(KEYS),
        rank=st.sampled_from(CLASSES),
        prompt=st.integers(1, 40),
        most=st.integers(1, 40),
    )
    def come(self, key: str, rank: Any, prompt: int, most: int) -> None:
        work = Work(
            request_id="r",
            principal=Principal(key, ""),
            model="m",
            route=self.route,
            prompt_tokens=prompt,
            max_tokens=most,
            is_capped=True,
            choices=1,
            priority=priority_of(rank),
            deadline=None,
            used=Used(),
        )
        request = Request(work, self.loop.create_future())
        request.most = self.limits.concurrent_requests
        request.left = PROMOTE_EVERY * (len(self.waiting) + 1)
        self.sent.append(request)
        self.waiting.append(request)
        request.task = self.loop.create_task(self._go(request))
        self._settle()

    @precondition(lambda self: self.waiting or self.running)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from([*self.waiting, *self.running]))
        assert request.task is not None
        request.task.cancel()
        self._settle()
        assert request.outcomes == ["cancelled"]

    @precondition(lambda self: self.running)
    @rule(data=st.data(), part=st.floats(0, 1), fails=st.booleans())
    def end(self, data: st.DataObject, part: float, fails: bool) -> None:
        request = data.draw(st.sampled_from(self.running))
        if fails:
            request.ends.set_exception(EngineDead("gone"))
        else:
            output = math.floor(request.work.max_tokens * part)
            request.ends.set_result((request.work.prompt_tokens, output))
        self._settle()
        assert request.outcomes == ["failed" if fails else "completed"]

    @rule(places=st.integers(1, 4))
    def change_room(self, places: int) -> None:
        self.places = places
        self.admission.apply(self.admission.policy)
        self._settle()

    @rule(policy=POLICIES)
    def reload_policy(self, policy: Policy) -> None:
        self.admission.apply(policy)
        self._settle()

    @rule(limits=LIMITS)
    def reload_limits(self, limits: Limits) -> None:
        self.limits = limits
        self.limiter.table = LimitTable(default_key=limits)

    @invariant()
    def each_request_is_counted_once(self) -> None:
        """In the metrics: refused by a limit, shed, admitted, or gone before one of these."""
        if not hasattr(self, "admission"):
            return
        admitted = sum(
            sample.value
            for metric in self.admission.stats.collect()
            for sample in metric.samples
            if sample.name == "gateway_queue_wait_seconds_count"
        )
        ends = Counter(outcome for request in self.sent for outcome in request.outcomes)
        assert sum(self.limiter.refused.values()) == ends["limited"]
        assert sum(self.admission.stats.shed.values()) == ends["shed"]
        assert admitted == sum(request.began for request in self.sent)
        for request in self.sent:
            busy = request in self.waiting or request in self.running
            assert len(request.outcomes) == (0 if busy else 1)

    @invariant()
    def nobody_waits_for_an_idle_engine(self) -> None:
        assert self.running or not self.waiting

    def teardown(self) -> None:
        try:
            self._end_all()
        finally:
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            if left:
                self.loop.run_until_complete(asyncio.wait(left))
            self.loop.close()

    def _end_all(self) -> None:
        while self.running:
            self.running[0].ends.set_result((0, 0))
            self._settle()
        if hasattr(self, "admission"):
            self.each_request_is_counted_once()
            controller = self.admission.lane(self.route).controller
            assert (controller.held, controller.waiting, self.engine.held_back) == (0, 0, 0)
            for key in KEYS:
                counters = self.limiter.book.counters
                if held := counters.get(("key", key, "concurrent_requests")):
                    assert not held.used
                if spent := counters.get(("key", key, "tokens_per_minute")):
                    own = [one.tokens for one in self.sent if one.flow[0] == key]
                    assert spent.total(self.clock.ms) == sum(own)

    async def _go(self, request: Request) -> None:
        used = request.work.used
        try:
            async with self.gate.enter(request.work):
                self._note_begin(request)
                try:
                    used.prompt_tokens, used.completion_tokens = await request.ends
                    request.tokens = used.prompt_tokens + used.completion_tokens
                finally:
                    self.running.remove(request)
        except RateLimited:
            request.outcomes.append("limited")
        except ServerOverloaded:
            request.outcomes.append("shed")
        except EngineDead:
            request.outcomes.append("failed")
        except asyncio.CancelledError:
            request.outcomes.append("cancelled")
        else:
            request.outcomes.append("completed")
        finally:
            if not request.began:
                self.waiting.remove(request)

    def _note_begin(self, request: Request) -> None:
        flow = [one for one in self.waiting if one.flow == request.flow]
        assert flow[0] is request, "the requests of a flow changed places"
        self.waiting.remove(request)
        request.began = True
        self.running.append(request)
        assert len(self.running) <= self.places, "above capacity"
        key = request.flow[0]
        own = [one for one in self.running if one.flow[0] == key and one.most]
        if request.most is not None and request is self.sent[-1]:
            assert len(own) <= request.most, "above the limit"
        for other in self.waiting:
            if other is not self.sent[-1]:
                other.left -= 1
                assert other.left > 0, "a request starved"

    def _settle(self) -> None:
        async def turns() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        for request in self.sent:
            if request.task is not None and request.task.done():
                request.task.result()  # what was asserted within it


class EngineOf:
    """What admission sees of the machine's engine."""

    def __init__(self, machine: GateMachine) -> None:
        self._machine = machine
        self.held_back = 0

    def load(self) -> Load:
        return Load(0, 0, 0, 0, self._machine.places)


GateMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestGateMachine = GateMachine.TestCase
