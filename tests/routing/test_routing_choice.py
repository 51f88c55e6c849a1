"""Policies, splits, breakers and budgets, by their own promises."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.routing.ask import Ask, prefix_of, session_of
from gateway.routing.breaker import Breaker, Pass
from gateway.routing.budget import RetryBudget
from gateway.routing.config import BreakerRules, ModelSpec, Policy, Retries, Split
from gateway.routing.hashing import ranked
from gateway.routing.policies import bounded, choose
from gateway.routing.split import share_for

SPEC = ModelSpec("m")
DRAW = random.Random(7)


@dataclass
class Place:
    name: str
    weight: float = 1.0
    tokens: int = 0
    outstanding: int = 0


def chosen(policy: Policy, places: list[Place], ask: Ask | None = None) -> tuple[Place, str]:
    return choose(replace(SPEC, policy=policy), places, ask, DRAW)


def test_least_tokens_goes_by_work_for_its_weight_and_then_by_requests() -> None:
    a, b, c = Place("a", 1, 100, 1), Place("b", 4, 300, 9), Place("c", 1, 100, 0)
    assert chosen("least_tokens", [a, b, c]) == (b, "least_tokens")
    assert chosen("least_tokens", [a, c]) == (c, "least_tokens")
    assert chosen("prefix", [a, c]) == (c, "least_tokens")  # there is no prefix to go by
    assert chosen("session", [a]) == (a, "only")


def test_two_choices_never_takes_the_fullest_of_many() -> None:
    places = [Place(str(n), tokens=n) for n in range(6)]
    counts = Counter(chosen("two_choices", places)[0].name for _ in range(600))
    assert counts["5"] == 0
    assert counts["0"] > counts["3"] > 0


def test_weights_are_kept_in_the_long_run() -> None:
    places = [Place("a", 9), Place("b", 1)]
    counts = Counter(chosen("weighted", places)[0].name for _ in range(4000))
    assert 250 < counts["b"] < 600


@settings(max_examples=50, deadline=None)
@given(st.sets(st.text(min_size=1, max_size=8), min_size=2, max_size=12), st.data())
def test_only_the_keys_of_a_place_that_goes_move(names: set[str], data: Any) -> None:
    places = [(name, 1.0) for name in sorted(names)]
    gone = data.draw(st.sampled_from(places))
    rest = [place for place in places if place != gone]
    for key in map(str, range(40)):
        before = places[ranked(key, places)[0]]
        after = rest[ranked(key, rest)[0]]
        assert after == before or before == gone


def test_heavier_places_get_more_keys() -> None:
    places = [("a", 3.0), ("b", 1.0)]
    counts = Counter(places[ranked(str(n), places)[0]][0] for n in range(4000))
    assert 2800 < counts["a"] < 3200


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(0, 50)), min_size=1, max_size=10),
    st.floats(1, 3),
    st.text(min_size=1),
)
def test_no_place_gets_far_above_its_share(
    loads: list[tuple[int, int]], factor: float, key: str
) -> None:
    places = [Place(str(n), w, outstanding=o) for n, (w, o) in enumerate(loads)]
    found, why = bounded(key, places, factor, "prefix")
    total = sum(place.outstanding for place in places) + 1
    share = factor * total * found.weight / sum(place.weight for place in places)
    assert found.outstanding < share + 1
    assert why in ("prefix", "prefix:spilled")


def test_a_hot_key_spills_over_and_comes_back() -> None:
    places = [Place("a"), Place("b"), Place("c")]
    ask = Ask("chat", "m", prefix="hot")
    own = chosen("prefix", places, ask)[0]
    own.outstanding = 30
    other, why = chosen("prefix", places, ask)
    assert other is not own
    assert why == "prefix:spilled"
    own.outstanding = 0
    assert chosen("prefix", places, ask) == (own, "prefix")


def test_prefixes_and_sessions() -> None:
    def prompt(system: str, user: str, **more: Any) -> str:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        return prefix_of({"messages": messages} | more, 40)

    assert prompt("s" * 40, "a") == prompt("s" * 40, "b")
    assert prompt("s" * 10, "a") != prompt("s" * 10, "b")
    assert prompt("s" * 40, "a") != prompt("s" * 40, "a", tools=[{"x": 1}])
    assert prefix_of({"prompt": [1, 2, 3]}, 40) == prefix_of({"prompt": [1, 2, 3]}, 40) != ""
    assert prefix_of({}, 40) == ""
    assert session_of(SPEC, {}, {"user": "u"}, "k1") != session_of(SPEC, {}, {"user": "u"}, "k2")
    assert session_of(SPEC, {b"x-session-id": b"s"}, {"user": "u"}, "k") == "k\0s"
    assert session_of(SPEC, {}, {"user": 7}, "k") == ""


def test_shares_are_kept_and_change_little() -> None:
    spec = replace(SPEC, split=Split((("a", 90.0), ("b", 10.0))))
    before = {str(n): share_for(spec, str(n), {}) for n in range(2000)}
    assert before == {key: share_for(spec, key, {}) for key in before}
    assert 130 < list(before.values()).count("b") < 270
    more = replace(spec, split=Split((("a", 80.0), ("b", 20.0))))
    after = {key: share_for(more, key, {}) for key in before}
    assert all(after[key] == "b" for key in before if before[key] == "b")
    off = replace(spec, split=Split((("a", 1.0), ("b", 0.0)), sticky="none"))
    assert {share_for(off, "k", {}) for _ in range(50)} == {"a"}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=200), st.floats(0, 1), st.floats(0, 20))
def test_retries_stay_a_share_of_requests(wants: list[bool], ratio: float, burst: float) -> None:
    budget = RetryBudget(Retries(ratio, burst))
    retries = 0
    for want in wants:
        budget.note_request()
        retries += want and budget.take()
    assert retries <= burst + ratio * len(wants) + 1e-6


class BreakerMachine(RuleBasedStateMachine):
    """The breaker against what its page promises, with a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.rules = BreakerRules(failures=3, open_s=1.0, most_open_s=4.0, successes=2)
        self.breaker = Breaker(self.rules, lambda: self.now)
        self.in_flight: list[Pass] = []

    @rule(seconds=st.floats(0.1, 5))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def begin(self) -> None:
        passes = self.breaker.passes
        given = self.breaker.try_pass()
        assert (given is not None) == passes
        if given is not None:
            self.in_flight.append(given)

    @precondition(lambda self: self.in_flight)
    @rule(how=st.sampled_from(["succeed", "fail", "abandon"]), which=st.integers(0, 1000))
    def end(self, how: str, which: int) -> None:
        was = self.breaker.state
        given = self.in_flight.pop(which % len(self.in_flight))
        getattr(self.breaker, how)(given)
        if given == "usual" and (was != "closed" or how != "fail"):
            assert self.breaker.state == was

    @invariant()
    def one_trial_at_a_time_and_never_open_for_long(self) -> None:
        assert self.in_flight.count("trial") <= 1
        assert self.breaker.retry_in_s <= self.rules.most_open_s
        assert (self.breaker.state == "open") == (self.breaker.retry_in_s > 0)
        if self.breaker.state == "half_open" and "trial" not in self.in_flight:
            assert self.breaker.passes


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_a_breaker_step_by_step() -> None:
    now = [0.0]
    breaker = Breaker(BreakerRules(2, 1.0, 3.0, 2), lambda: now[0])
    for _ in range(2):
        assert breaker.try_pass() == "usual"
        breaker.fail("usual")
    assert (breaker.state, breaker.try_pass()) == ("open", None)
    waits = []
    for _ in range(3):
        now[0] += breaker.retry_in_s
        assert breaker.state == "half_open"
        assert breaker.try_pass() == "trial"
        breaker.fail("trial")
        waits.append(breaker.retry_in_s)
    assert waits == pytest.approx([2.0, 3.0, 3.0])
    now[0] += 3.0
    for state in ("half_open", "closed"):
        assert breaker.try_pass() == "trial"
        breaker.succeed("trial")
        assert breaker.state == state
    assert breaker.try_pass() == "usual"
    breaker.fail("usual")
    assert breaker.state == "closed"
