"""The rules of admission on one engine, without clocks, tasks or sockets."""

from __future__ import annotations

import itertools

import pytest

from engine.base import Load
from gateway.control.admission.controller import PROMOTE_EVERY, Controller
from gateway.control.admission.policy import Policy
from gateway.control.admission.ticket import Ticket, cost_of

INTERACTIVE, DEFAULT, BATCH = range(3)
STRICT = Policy(max_queue=100, overcommit=0.0, shares=(0.0, 0.0, 0.0), promote_s=1000.0)


class Engine:
    """A controller, its engine's load, and a clock that moves with every arrival."""

    def __init__(self, policy: Policy = STRICT, **load: int) -> None:
        fields = {"waiting": 0, "running": 0, "kv_used": 0, "kv_total": 0, "max_running": 1}
        self.load = Load(**{**fields, **load})
        self.policy = policy
        self.controller = Controller(lambda: self.load, lambda: self.policy)
        self.now = 0.0
        self.refused: list[tuple[Ticket, str]] = []
        self.order: list[Ticket] = []

    def come(
        self, rank: int = DEFAULT, tenant: str = "a", *, limit: float = float("inf"), **need: float
    ) -> Ticket:
        self.now += 0.001
        fields = {"slots": 1, "blocks": 1, "cost": 100.0, "weight": 1.0, **need}
        ticket = Ticket(tenant=tenant, rank=rank, arrived=self.now, limit=limit, **fields)
        if self.controller.enter(ticket, self.now):
            self.order.append(ticket)
        else:
            admitted, refusal = self.controller.queue(ticket, self.now)
            self.order += admitted
            if refusal is not None:
                self.refused.append((refusal.ticket, refusal.reason))
        return ticket

    def end(self, ticket: Ticket, cost: float | None = None) -> list[Ticket]:
        self.now += 0.001
        self.controller.release(ticket, self.now, ticket.cost if cost is None else cost)
        admitted = self.controller.admit(self.now)
        self.order += admitted
        return admitted

    def run_dry(self) -> list[Ticket]:
        """End requests one by one in the order in which they were admitted."""
        for ticket in self.order:
            if ticket.state == "held":
                self.end(ticket)
        return self.order


def test_room_is_for_the_first_that_come() -> None:
    engine = Engine(max_running=2)
    first, second, third = (engine.come() for _ in range(3))
    assert [t.state for t in (first, second, third)] == ["held", "held", "waiting"]
    assert engine.end(first) == [third]
    assert engine.controller.waiting == 0


def test_an_engine_gets_a_little_more_than_its_room() -> None:
    engine = Engine(Policy(max_queue=100, overcommit=0.125), max_running=16)
    states = [engine.come().state for _ in range(20)]
    assert states == ["held"] * 18 + ["waiting"] * 2


def test_memory_counts_as_much_as_sequences() -> None:
    engine = Engine(max_running=100, kv_total=1600)
    small = engine.come(blocks=40)
    large = engine.come(blocks=80)
    behind = engine.come(blocks=10)
    # The large one is not passed, or it would never run.
    assert (small.state, large.state, behind.state) == ("held", "waiting", "waiting")
    assert engine.end(small) == [large, behind]


def test_memory_that_others_fill_counts() -> None:
    engine = Engine(max_running=100, kv_total=1600, kv_used=1500)
    engine.come(blocks=5)
    assert engine.come(blocks=5).state == "held", "six blocks are free, and five are in use by it"
    assert engine.come(blocks=10).state == "waiting"
    engine.load = Load(0, 1, 160, 1600, 100)
    assert len(engine.controller.admit(engine.now)) == 1


def test_what_is_larger_than_the_engine_runs_alone() -> None:
    engine = Engine(max_running=4, kv_total=160)
    huge = engine.come(slots=50, blocks=500)
    assert huge.state == "held", "the engine itself knows what can never fit"
    assert (engine.controller.held_slots, engine.controller.held_blocks) == (4, 10)
    other = engine.come()
    assert other.state == "waiting"
    again = engine.come(slots=50, blocks=500)
    assert engine.end(huge) == [other]
    assert engine.end(other) == [again]


def test_classes_go_in_order_and_tenants_keep_theirs() -> None:
    engine = Engine()
    engine.come()
    waiting = [engine.come(rank) for rank in (BATCH, DEFAULT, INTERACTIVE) * 2]
    assert engine.run_dry()[1:] == [waiting[i] for i in (2, 5, 1, 4, 0, 3)]


def test_tenants_share_by_tokens_and_not_by_requests() -> None:
    engine = Engine()
    engine.come(tenant="x")
    for _ in range(4):
        engine.come(tenant="large", cost=300.0)
    for _ in range(12):
        engine.come(tenant="small", cost=100.0)
    served = {"x": 0.0, "large": 0.0, "small": 0.0}
    for ticket in engine.run_dry()[:-1]:
        served[ticket.tenant] += ticket.cost
        if served["large"] and served["small"]:
            assert abs(served["large"] - served["small"]) <= 300
    assert (served["large"], served["small"]) == (1200, 1100)


def test_weights_divide_the_engine() -> None:
    engine = Engine()
    engine.come(tenant="x")
    for _ in range(40):
        engine.come(tenant="one", weight=1.0)
        engine.come(tenant="three", weight=3.0)
    first = [ticket.tenant for ticket in engine.run_dry()[1:41]]
    assert 29 <= first.count("three") <= 31


def test_the_charge_is_what_was_really_made() -> None:
    """Both expect the same; the answers of one are four times as long in the end."""
    engine = Engine()
    engine.come(tenant="x")
    for _ in range(50):
        engine.come(tenant="long")
        engine.come(tenant="short")
    for ticket in engine.order:
        if ticket.state == "held" and len(engine.order) < 51:
            engine.end(ticket, 400.0 if ticket.tenant == "long" else 100.0)
    tenants = [ticket.tenant for ticket in engine.order[1:]]
    assert 39 <= tenants.count("short") <= 41


def test_a_pause_earns_no_credit() -> None:
    engine = Engine()
    engine.come(tenant="away")
    for _ in range(30):
        engine.come(tenant="busy")
    for ticket in engine.order:
        if len(engine.order) < 20:
            engine.end(ticket)
    for _ in range(10):
        engine.come(tenant="away")
    after = [ticket.tenant for ticket in engine.run_dry()[20:32]]
    assert 5 <= after.count("away") <= 7


def test_room_is_kept_for_classes_in_use_only() -> None:
    policy = Policy(max_queue=100, overcommit=0.0, shares=(0.25, 0.0, 0.0), promote_s=1000.0)
    engine = Engine(policy, max_running=8)
    all_of_it = [engine.come() for _ in range(8)]
    assert {ticket.state for ticket in all_of_it} == {"held"}
    person = engine.come(INTERACTIVE)
    waiting = engine.come()
    assert engine.end(all_of_it.pop()) == [person]
    assert engine.end(person) == []
    assert engine.end(all_of_it.pop()) == []
    assert engine.end(all_of_it.pop()) == [waiting], "two of eight stay free for people"
    assert engine.come(INTERACTIVE).state == "held"
    engine.now += 100
    assert engine.come().state == "held", "no one of that class has come for a while"


def test_a_kept_share_is_used_although_a_higher_class_waits() -> None:
    policy = Policy(max_queue=100, overcommit=0.0, shares=(0.0, 0.0, 0.25), promote_s=1000.0)
    engine = Engine(policy, max_running=4)
    lines = [engine.come(BATCH) for _ in range(2)]
    people = [engine.come(INTERACTIVE) for _ in range(6)]
    assert [p.state for p in people[:3]] == ["held", "held", "waiting"]
    assert engine.end(lines.pop()) == [people[2]]
    next_line = engine.come(BATCH)
    assert engine.end(lines.pop()) == [next_line], "a quarter of the engine is for batches"


def test_the_oldest_goes_now_and_then_whatever_its_class() -> None:
    engine = Engine(Policy(max_queue=100, overcommit=0.0, promote_s=10.0))
    running = engine.come()
    oldest = [engine.come(BATCH, tenant) for tenant in "abc"]
    engine.now += 10
    order: list[Ticket] = []
    for _ in range(12):
        engine.come(INTERACTIVE, "people")
        engine.come(INTERACTIVE, "people")
        (running,) = engine.end(running)
        order.append(running)
    places = [place for place, ticket in enumerate(order) if ticket in oldest]
    assert places[0] < PROMOTE_EVERY
    assert [places[1] - places[0], places[2] - places[1]] == [PROMOTE_EVERY] * 2
    assert [ticket for ticket in order if ticket in oldest] == oldest


def test_the_oldest_is_not_passed_when_it_is_its_turn() -> None:
    engine = Engine(Policy(max_queue=100, overcommit=0.0, promote_s=10.0), max_running=4)
    small = [engine.come(INTERACTIVE) for _ in range(4)]
    whole = engine.come(BATCH, slots=4)
    engine.now += 10
    for _ in range(20):
        engine.come(INTERACTIVE)
    for _ in range(40):
        if whole.state != "held":
            running = [t for t in engine.order if t.state == "held"]
            engine.end(running[0])
    assert whole.state == "held"
    between = engine.order.index(whole) - len(small)
    assert between < PROMOTE_EVERY


def test_a_full_queue_refuses() -> None:
    engine = Engine(Policy(max_queue=2, overcommit=0.0))
    engine.come()
    engine.come()
    engine.come()
    assert not engine.refused
    newest = engine.come()
    assert engine.refused == [(newest, "queue_full")]
    assert engine.controller.waiting == 2


def test_the_engines_own_queue_is_part_of_the_bound() -> None:
    engine = Engine(Policy(max_queue=1, overcommit=4.0))
    assert [engine.come().state for _ in range(3)] == ["held", "held", "over"]
    none = Engine(Policy(max_queue=0, overcommit=4.0))
    assert [none.come().state for _ in range(2)] == ["held", "over"]


def test_a_flood_crowds_out_itself_only() -> None:
    engine = Engine(Policy(max_queue=4, overcommit=0.0))
    engine.come()
    flood = [engine.come(tenant="flood") for _ in range(4)]
    other = engine.come(tenant="other")
    assert engine.refused == [(flood[-1], "displaced")]
    assert other.state == "waiting"
    person = engine.come(INTERACTIVE, "flood")
    assert engine.refused[1:] == [(flood[-2], "displaced")]
    assert person.state == "waiting"
    assert engine.come(BATCH, "third").state == "over", "nobody goes for a lower class"


def test_who_is_due_by_age_is_not_displaced() -> None:
    engine = Engine(Policy(max_queue=2, overcommit=0.0, promote_s=10.0))
    engine.come()
    old = [engine.come(BATCH) for _ in range(2)]
    engine.now += 10
    person = engine.come(INTERACTIVE)
    assert engine.refused == [(person, "queue_full")]
    assert [ticket.state for ticket in old] == ["waiting", "waiting"]


def test_a_class_can_have_a_smaller_queue() -> None:
    engine = Engine(Policy(max_queue=10, class_queue=(10, 10, 1), overcommit=0.0))
    engine.come()
    assert [engine.come(BATCH).state for _ in range(2)] == ["waiting", "over"]
    assert engine.come().state == "waiting"


def test_a_wait_that_is_too_long_is_refused_at_once() -> None:
    engine = Engine(max_running=2)
    for _ in range(5):
        ticket = engine.come()
        engine.now += 10
        engine.end(ticket)
    engine.come()
    engine.come()
    # Two run for ten seconds each, so one ends every five.
    assert engine.come(limit=engine.now + 6).state == "waiting"
    assert engine.come(limit=engine.now + 9).state == "over"
    assert engine.refused[-1][1] == "expected_wait"
    assert engine.come(limit=engine.now + 11).state == "waiting"
    assert engine.come(INTERACTIVE, limit=engine.now + 6).state == "waiting"
    assert engine.controller.retry_after() == 16, "three wait, and one begins every five seconds"


def test_nobody_is_refused_on_a_guess() -> None:
    engine = Engine()
    engine.come()
    assert engine.come(limit=engine.now + 0.1).state == "waiting"
    assert engine.controller.retry_after() == 1


def test_an_engine_that_is_down_lets_everybody_through() -> None:
    """It says so itself, and they are sent elsewhere."""
    engine = Engine()
    running = engine.come()
    waiting = [engine.come() for _ in range(3)]
    engine.load = Load(0, 0, 0, 0, 0)
    assert engine.controller.admit(engine.now) == waiting
    passed = engine.come()
    assert passed.state == "held"
    engine.load = Load(0, 0, 0, 0, 1)
    later = engine.come()
    assert later.state == "waiting"
    for ticket in (running, *waiting, passed):
        engine.end(ticket, 0.0)
    assert later.state == "held"
    assert engine.controller.held == 1


@pytest.mark.parametrize(("prompt", "output", "cost"), [(10, 0, 10), (10, 5, 20), (0, 0.5, 1)])
def test_output_costs_twice(prompt: int, output: float, cost: float) -> None:
    assert cost_of(prompt, output) == cost


def test_idle_tenants_are_forgotten() -> None:
    engine = Engine()
    for number in itertools.count():
        if number == 5000:
            break
        engine.end(engine.come(tenant=f"t{number}"))
    assert len(engine.controller.classes[DEFAULT]._flows) <= 1024
