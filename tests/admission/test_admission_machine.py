"""Whatever comes, leaves, fails, grows and shrinks: what admission promises holds."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.base import Load
from gateway.control.admission.controller import PROMOTE_EVERY, Controller
from gateway.control.admission.policy import Policy
from gateway.control.admission.ticket import BLOCK_TOKENS, Ticket

NEVER = float("inf")
TENANTS = st.sampled_from(["a", "b", "c"])
RANKS = st.integers(0, 2)
POLICIES = st.builds(
    Policy,
    max_queue=st.integers(0, 12),
    class_queue=st.tuples(*[st.integers(0, 12)] * 3),
    timeout_s=st.just((10.0, 20.0, 40.0)),
    shares=st.tuples(*[st.sampled_from([0.0, 0.1, 0.3])] * 3),
    overcommit=st.sampled_from([0.0, 0.125, 1.0]),
    promote_s=st.sampled_from([0.5, 5.0]),
)
LOADS = st.builds(
    Load,
    waiting=st.just(0),
    running=st.just(0),
    kv_used=st.sampled_from([0, 0, 100, 10_000]),
    kv_total=st.sampled_from([0, 160, 1600]),
    max_running=st.sampled_from([0, 1, 2, 4, 20]),
)


class AdmissionMachine(RuleBasedStateMachine):
    """Drives a Controller as ``Lane`` does, with a clock of its own."""

    @initialize(policy=POLICIES, load=LOADS)
    def begin(self, policy: Policy, load: Load) -> None:
        self.policy, self.load, self.now = policy, load, 0.0
        self.controller = Controller(lambda: self.load, lambda: self.policy)
        self.waiting: list[Ticket] = []
        self.held: list[Ticket] = []
        self.over: list[Ticket] = []
        # Admissions by which a request that is due by age must have been one of them.
        self.left: dict[Ticket, int] = {}
        self.longest = max(policy.max_queue, 12)

    @rule(
        rank=RANKS,
        tenant=TENANTS,
        slots=st.integers(1, 30),
        blocks=st.integers(0, 200),
        cost=st.floats(0, 1000),
        weight=st.sampled_from([0.5, 1.0, 4.0]),
        patience=st.sampled_from([0.1, 5.0, NEVER]),
    )
    def come(
        self,
        rank: int,
        tenant: str,
        slots: int,
        blocks: int,
        cost: float,
        weight: float,
        patience: float,
    ) -> None:
        self._tick(0.001)
        ticket = Ticket(tenant, rank, weight, slots, blocks, cost, self.now, self.now + patience)
        anybody = bool(self.waiting)
        if self.controller.enter(ticket, self.now):
            assert not anybody, "somebody was passed who waits"
            self._begin_to_run([ticket])
            return
        self.waiting.append(ticket)
        admitted, refusal = self.controller.queue(ticket, self.now)
        self._begin_to_run(admitted)
        if refusal is not None:
            assert refusal.ticket not in self.left, "it was due by age and had to go"
            assert refusal.ticket.rank >= rank, "somebody more important had to go"
            self._end(refusal.ticket, self.waiting)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def lose_patience(self, data: st.DataObject) -> None:
        ticket = data.draw(st.sampled_from(self.waiting))
        self.controller.leave(ticket)
        self._end(ticket, self.waiting)
        self._admit()

    @precondition(lambda self: self.held)
    @rule(data=st.data(), share=st.sampled_from([0.0, 0.3, 1.0, 5.0]))
    def finish_or_fail(self, data: st.DataObject, share: float) -> None:
        ticket = data.draw(st.sampled_from(self.held))
        self._tick(0.01)
        self.controller.release(ticket, self.now, ticket.cost * share)
        self._end(ticket, self.held)
        self._admit()

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self._tick(seconds)
        self._admit()

    @rule(load=LOADS)
    def change_load(self, load: Load) -> None:
        self.load = load
        self._admit()

    @rule(kv_used=st.integers(0, 2000))
    def fill_memory(self, kv_used: int) -> None:
        self.load = replace(self.load, kv_used=kv_used)
        self._admit()

    @rule(policy=POLICIES)
    def reload(self, policy: Policy) -> None:
        self.policy = policy
        self.left.clear()
        self._tick(0.0)
        self._admit()

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "controller"):
            return
        controller = self.controller
        assert controller.tickets() == self.waiting, "arrivals are out of order"
        assert controller.held == len(self.held)
        assert controller.held_slots == sum(t.held_slots for t in self.held)
        assert controller.held_blocks == sum(t.held_blocks for t in self.held)
        for rank, queue in enumerate(controller.classes):
            assert queue.waiting == sum(t.rank == rank for t in self.waiting)
            assert queue.held_slots == sum(t.held_slots for t in self.held if t.rank == rank)
            assert set(queue.active) == {t.tenant for t in self.waiting if t.rank == rank}
        assert all(t.held_slots >= 1 for t in self.held)

    @invariant()
    def nobody_waits_for_an_idle_engine(self) -> None:
        if hasattr(self, "controller"):
            assert self.held or not self.waiting

    @invariant()
    def the_queue_is_bounded(self) -> None:
        """By the largest bound there can have been; a smaller one sends nobody away."""
        if hasattr(self, "controller"):
            assert len(self.waiting) <= self.longest

    def teardown(self) -> None:
        if not hasattr(self, "controller"):
            return
        while self.held or self.waiting:
            ticket = self.held[0]
            self.controller.release(ticket, self.now, ticket.cost)
            self._end(ticket, self.held)
            self._admit()
        controller = self.controller
        assert (controller.held, controller.held_slots, controller.held_blocks) == (0, 0, 0)
        assert controller.waiting == 0
        for queue in controller.classes:
            assert (queue.waiting, queue.held_slots, queue.held_blocks) == (0, 0, 0)
            assert all(flow.held == 0 for flow in queue._flows.values())
        assert all(ticket.state == "over" for ticket in self.over)

    def _tick(self, seconds: float) -> None:
        self.now += seconds
        for older, ticket in enumerate(self.waiting):
            due = self.now - ticket.arrived >= self.policy.promote_s
            if due and ticket not in self.left:
                self.left[ticket] = PROMOTE_EVERY * (older + 1)

    def _admit(self) -> None:
        self._begin_to_run(self.controller.admit(self.now))

    def _begin_to_run(self, admitted: list[Ticket]) -> None:
        for ticket in admitted:
            assert ticket.state == "held"
            if ticket in self.waiting:
                flow = [
                    t for t in self.waiting if (t.rank, t.tenant) == (ticket.rank, ticket.tenant)
                ]
                assert flow[0] is ticket, "the tenant's requests changed places"
                self.waiting.remove(ticket)
            self.left.pop(ticket, None)
            self.held.append(ticket)
            for other in self.left:
                self.left[other] -= 1
                assert self.left[other] > 0, "a request starved"
        if admitted and len(self.held) > 1 and self.load.max_running:
            self._check_room()

    def _check_room(self) -> None:
        policy, load = self.policy, self.load
        slots = load.max_running + policy.extra_slots(load.max_running)
        assert sum(t.held_slots for t in self.held) <= slots
        if load.kv_total:
            blocks = int(load.kv_total * (1 + policy.overcommit)) // BLOCK_TOKENS
            assert sum(t.held_blocks for t in self.held) <= blocks

    def _end(self, ticket: Ticket, of: list[Ticket]) -> None:
        of.remove(ticket)
        self.left.pop(ticket, None)
        self.over.append(ticket)
        assert ticket.state == "over"


AdmissionMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=50, deadline=None
)
TestAdmissionMachine = AdmissionMachine.TestCase


@given(
    arrivals=st.lists(
        st.tuples(st.sampled_from([0, 0, 0, 1, 2]), TENANTS, st.integers(1, 5)),
        min_size=60,
        max_size=120,
    ),
    shares=st.sampled_from([(0.0, 0.0, 0.0), (0.3, 0.1, 0.1)]),
    max_running=st.integers(1, 4),
)
@settings(max_examples=40, deadline=None)
def test_nobody_starves(
    arrivals: list[tuple[int, str, int]], shares: tuple[float, float, float], max_running: int
) -> None:
    """Twice as much comes as can run, most of it for people; the bound holds for everybody."""
    machine = AdmissionMachine()
    machine.begin(
        policy=Policy(max_queue=1000, shares=shares, overcommit=0.0, promote_s=5.0),
        load=Load(0, 0, 0, 0, max_running),
    )
    due = 0
    for position, (rank, tenant, slots) in enumerate(arrivals):
        machine.come(rank, tenant, slots, 0, 10.0, 1.0, NEVER)
        machine.wait(0.5)
        due = max(due, len(machine.left))
        if position % 2 and machine.held:
            done = machine.held[0]
            machine.controller.release(done, machine.now, done.cost)
            machine._end(done, machine.held)
            machine._admit()
    assert due > 5
    machine.teardown()


class FairMachine(RuleBasedStateMachine):
    """Tenants with something waiting all the time get tokens by weight, whatever they ask for."""

    @initialize(weights=st.tuples(*[st.sampled_from([1.0, 2.0, 4.0])] * 3))
    def begin(self, weights: tuple[float, ...]) -> None:
        self.weights = dict(zip("abc", weights, strict=True))
        policy = Policy(max_queue=1000, overcommit=0.0, promote_s=1e9)
        self.load = Load(0, 0, 0, 0, 2)
        self.controller = Controller(lambda: self.load, lambda: policy)
        self.held: list[Ticket] = []
        self.served: dict[str, float] = defaultdict(float)
        self.most = 0.0
        self.now = 0.0
        for tenant in "abcabc":
            self._come(tenant, 10.0)
        self.served.clear()

    @rule(cost=st.floats(1, 500), at=st.integers(0, 1))
    def serve_one(self, cost: float, at: int) -> None:
        """One ends; whoever runs next asks again at once, so that nobody's queue runs dry."""
        ticket = self.held.pop(at)
        self.now += 1.0
        self.controller.release(ticket, self.now, ticket.cost)
        for admitted in self.controller.admit(self.now):
            self.held.append(admitted)
            self.served[admitted.tenant] += admitted.cost / self.weights[admitted.tenant]
            self._come(admitted.tenant, cost)

    @invariant()
    def nobody_is_behind(self) -> None:
        """No more than one request per running place, as for start-time fair queueing."""
        if hasattr(self, "served"):
            shares = [self.served[tenant] for tenant in "abc"]
            assert max(shares) - min(shares) <= 2 * self.most + 20

    def _come(self, tenant: str, cost: float) -> None:
        self.now += 0.001
        weight = self.weights[tenant]
        self.most = max(self.most, cost / weight)
        ticket = Ticket(tenant, 1, weight, 1, 0, cost, self.now)
        if self.controller.enter(ticket, self.now):
            self.held.append(ticket)
        else:
            self.held += self.controller.queue(ticket, self.now)[0]


FairMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=50, deadline=None)
TestFairMachine = FairMachine.TestCase
