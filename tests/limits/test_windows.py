"""What one process promises: never above a limit in any window, and waits that are true."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from limit_tools import Running, SetClock, local_limiter, work_of

from engine.base import EngineDead
from gateway.control.limits.windows import DAY_MS, WINDOWS, set_windows
from gateway.control.rights import Limits
from gateway.errors import RateLimited

SECOND_MS, MINUTE_MS = 1000, 60_000
TOKENS_S, TOKENS_M, TOKENS_D = 40, 120, 400
REQUESTS_S, REQUESTS_M, AT_ONCE = 5, 20, 3
LIMITS = Limits(
    requests_per_second=REQUESTS_S,
    requests_per_minute=REQUESTS_M,
    tokens_per_second=TOKENS_S,
    tokens_per_minute=TOKENS_M,
    tokens_per_day=TOKENS_D,
    concurrent_requests=AT_ONCE,
)
PAUSES = st.one_of(st.integers(0, 300), st.integers(0, 30_000), st.integers(0, 8 * 3_600_000))


class Sent:
    """What the model of the machine knows of one request."""

    def __init__(self, at_ms: int, day: int, tokens: int) -> None:
        self.at_ms, self.day, self.tokens = at_ms, day, tokens
        self.requests = 1


class LimitsMachine(RuleBasedStateMachine):
    """Arrivals, ends, cancels, failures and steps of the wall clock, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SetClock()
        self.limiter = local_limiter(self.clock)
        self.sent: list[Sent] = []
        self.running: list[tuple[Running, Sent]] = []

    @rule(prompt=st.integers(1, 50), most=st.integers(1, 50))
    def arrive(self, prompt: int, most: int) -> None:
        try:
            running = Running(self.limiter, work_of(prompt, most, limits=LIMITS))
        except RateLimited:
            return
        sent = Sent(self.clock.ms, self.clock.wall_ms // DAY_MS, prompt + most)
        self.sent.append(sent)
        self.running.append((running, sent))

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 99), part=st.floats(0, 1), how=st.sampled_from(["end", "gone"]))
    def end(self, pick: int, part: float, how: str) -> None:
        running, sent = self.running.pop(pick % len(self.running))
        prompt, most = running.work.prompt_tokens, running.work.max_tokens
        error = None if how == "end" else GeneratorExit()
        running.end(prompt, math.floor(most * part), error)
        sent.tokens = prompt + math.floor(most * part)

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 99))
    def fail_before_the_first_token(self, pick: int) -> None:
        running, sent = self.running.pop(pick % len(self.running))
        running.end(0, 0, EngineDead("gone"))
        sent.tokens = sent.requests = 0

    @rule(ms=PAUSES)
    def wait(self, ms: int) -> None:
        self.clock.sleep(ms)

    @rule(ms=st.integers(-7_200_000, 7_200_000))
    def set_the_wall_clock(self, ms: int) -> None:
        self.clock.wall_ms += ms

    @invariant()
    def never_above_a_limit(self) -> None:
        """Every window that ends with an arrival; others hold no more than one of these."""
        for last in self.sent[-1:]:
            for span_ms, tokens, requests in (
                (SECOND_MS, TOKENS_S, REQUESTS_S),
                (MINUTE_MS, TOKENS_M, REQUESTS_M),
            ):
                within = [one for one in self.sent if one.at_ms > last.at_ms - span_ms]
                assert sum(one.tokens for one in within) <= tokens
                assert sum(one.requests for one in within) <= requests
            same_day = [one for one in self.sent if one.day == last.day]
            assert sum(one.tokens for one in same_day) <= TOKENS_D
        assert len(self.running) <= AT_ONCE

    def teardown(self) -> None:
        for running, sent in self.running:
            running.end(1, 0)
            sent.tokens = 1
        counters = self.limiter.book.counters
        if counters:
            day = self.clock.wall_ms // DAY_MS
            used = counters["key", "key_a", "tokens_per_day"].total(self.clock.wall_ms)
            assert used == sum(one.tokens for one in self.sent if one.day == day)
            assert not counters["key", "key_a", "concurrent_requests"].used
        self.clock.sleep(2 * MINUTE_MS)
        for counter in counters.values():
            if not counter.window.is_calendar:
                assert counter.total(self.clock.ms) == 0


TestLimitsMachine = LimitsMachine.TestCase
TestLimitsMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)

ARRIVALS = st.lists(
    st.tuples(st.integers(0, 20_000), st.integers(1, 30), st.integers(0, 30), st.integers(0, 30)),
    min_size=5,
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(arrivals=ARRIVALS, start=st.integers(0, 400 * DAY_MS))
def test_a_client_that_waits_as_told_gets_in_and_not_a_moment_earlier(
    arrivals: list[tuple[int, int, int, int]], start: int
) -> None:
    clock = SetClock(1_700_000_000_000 + start)
    limits = Limits(
        requests_per_minute=12, tokens_per_second=50, tokens_per_minute=200, tokens_per_day=900
    )
    limiter = local_limiter(clock)
    refusals = 0
    for pause, prompt, most, made in arrivals:
        clock.sleep(pause)
        try:
            Running(limiter, work_of(prompt, most, limits=limits)).end(prompt, min(most, made))
            continue
        except RateLimited as error:
            wait = error.retry_after_ms
        refusals += 1
        if prompt + most > 50:
            assert wait is None  # it never fits into a second
            continue
        assert wait is not None
        assert wait > 0
        clock.sleep(wait - 1)
        with pytest.raises(RateLimited):
            Running(limiter, work_of(prompt, most, limits=limits))
        clock.sleep(1)
        Running(limiter, work_of(prompt, most, limits=limits)).end(prompt, min(most, made))
    assume(refusals)


@settings(max_examples=60, deadline=None)
@given(offset=st.integers(0, MINUTE_MS), per_minute=st.booleans())
def test_what_is_used_counts_for_the_whole_window(offset: int, per_minute: bool) -> None:
    window_ms, slot_ms = (MINUTE_MS, 1000) if per_minute else (SECOND_MS, 50)
    limits = Limits(requests_per_minute=3) if per_minute else Limits(requests_per_second=3)
    clock = SetClock(1_700_000_000_000 + offset)
    limiter = local_limiter(clock)
    for _ in range(3):
        Running(limiter, work_of(limits=limits)).end(1, 1)
    clock.sleep(window_ms - 1)
    with pytest.raises(RateLimited):
        Running(limiter, work_of(limits=limits))
    clock.sleep(1 + slot_ms)
    for _ in range(3):
        Running(limiter, work_of(limits=limits)).end(1, 1)


@given(ms=st.integers(0, 4_000_000_000_000))
def test_months_begin_and_end_with_those_of_the_calendar(ms: int) -> None:
    month = WINDOWS["usd_per_month"]
    end = datetime.fromtimestamp(month.end_ms(month.slot(ms)) / 1000, UTC)
    now = datetime.fromtimestamp(ms / 1000, UTC)
    assert (end.day, end.hour, end.minute, end.second) == (1, 0, 0, 0)
    assert (end.year * 12 + end.month) - (now.year * 12 + now.month) == 1


def test_every_limit_has_a_window() -> None:
    every = Limits(*range(1, 10))
    assert [window.field for window, _ in set_windows(every)] == list(WINDOWS)
