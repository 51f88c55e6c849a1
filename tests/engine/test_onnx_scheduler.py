"""Seats, blocks and slots stay consistent whatever comes, and the right one gives way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from onnx_calls import sequences

from engine.onnx.prefix_cache import BLOCK
from engine.onnx.scheduler import Scheduler, blocks_for
from engine.onnx.sequence import Sequence

SEATS = 4
KV_TOKENS = 12 * BLOCK


class Owners:
    """Slot memory that only remembers whose KV a slot holds."""

    def __init__(self) -> None:
        self.owner: dict[int, Sequence] = {}

    def copy(self, source: int, target: int, length: int) -> None:
        self.owner[target] = self.owner[source]

    def leave(self, slot: int) -> None:
        self.owner.pop(slot, None)


def queue(scheduler: Scheduler, length: int, priority: int = 0, n: int = 1) -> list[Sequence]:
    made = sequences(range(length), priority=priority, n=n, max_tokens=500)
    for sequence in made:
        scheduler.add(sequence)
    return made


class SchedulerMachine(RuleBasedStateMachine):
    """Random arrivals, departures and steps against the invariants."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Owners()
        self.left: list[Sequence] = []
        self.scheduler = Scheduler(
            self.memory,
            max_running=SEATS,
            kv_tokens=KV_TOKENS,
            before_leaving=self.check_still_there,
        )
        self.live: list[Sequence] = []

    def check_still_there(self, sequence: Sequence) -> None:
        if sequence.kv_len:
            assert self.holder(sequence.slot) is sequence.job

    def holder(self, slot: int) -> object:
        return self.memory.owner[slot].job

    @rule(length=st.integers(1, 4 * BLOCK), priority=st.integers(-1, 1), n=st.integers(1, 3))
    def arrive(self, length: int, priority: int, n: int) -> None:
        self.live += queue(self.scheduler, length, priority, n)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def depart(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.live))
        self.live.remove(sequence)
        self.scheduler.remove(sequence)

    @rule(count=st.integers(1, 2 * BLOCK))
    def prefill(self, count: int) -> None:
        sequence = self.scheduler.next_to_prefill()
        if sequence is None:
            return
        self.memory.owner[sequence.slot] = sequence
        sequence.kv_len = min(len(sequence.tokens), sequence.kv_len + count)
        if sequence.kv_len < len(sequence.tokens):
            return
        self.scheduler.start_decoding(sequence)
        family = [sequence]
        if sequence.output_len == 0:
            for other in self.live:
                if other.job is sequence.job and other.slot < 0 and not other.output_len:
                    family += [other] if self.scheduler.fork(sequence, other) else []
        for member in family:
            member.append(1)

    @rule()
    def decode(self) -> None:
        self.scheduler.make_room_to_decode()
        for sequence in list(self.scheduler.decoding):
            sequence.kv_len += 1
            assert sequence.kv_len <= sequence.blocks * BLOCK
            if len(sequence.tokens) + 1 > KV_TOKENS:
                self.live.remove(sequence)
                self.scheduler.remove(sequence)
            else:
                sequence.append(1)

    @invariant()
    def everything_fits(self) -> None:
        scheduler = self.scheduler
        running = [*scheduler.decoding, *filter(None, [scheduler.prefilling])]
        assert scheduler.used_tokens == sum(s.blocks for s in running) * BLOCK <= KV_TOKENS
        assert len(running) == scheduler.running_count <= SEATS
        assert scheduler.running_count + scheduler.waiting_count == len(self.live)
        assert [s.slot for s in scheduler.decoding] == list(range(len(scheduler.decoding)))
        if scheduler.prefilling:
            assert len(scheduler.decoding) <= scheduler.prefilling.slot < SEATS
        for sequence in running:
            assert sequence.blocks >= blocks_for(sequence.kv_len)
            if sequence.kv_len:
                assert self.holder(sequence.slot) is sequence.job
        for sequence in self.live:
            if sequence not in running:
                assert (sequence.slot, sequence.blocks, sequence.kv_len) == (-1, 0, 0)


TestScheduler = SchedulerMachine.TestCase


def make(seats: int = SEATS, blocks: int = 12) -> Scheduler:
    return Scheduler(
        Owners(), max_running=seats, kv_tokens=blocks * BLOCK, before_leaving=lambda _: None
    )


def seat(scheduler: Scheduler) -> Sequence:
    sequence = scheduler.next_to_prefill()
    assert sequence is not None
    scheduler._memory.owner[sequence.slot] = sequence  # type: ignore[attr-defined]
    sequence.kv_len = len(sequence.tokens)
    scheduler.start_decoding(sequence)
    sequence.append(1)
    return sequence


@given(st.permutations([(-1, "a"), (0, "b"), (0, "c"), (3, "d")]))
def test_lower_priority_numbers_run_first_and_equals_in_order(
    arrivals: list[tuple[int, str]],
) -> None:
    scheduler = make()
    names = {id(queue(scheduler, 4, priority)[0]): name for priority, name in arrivals}
    expected = [name for _, name in sorted(arrivals, key=lambda arrival: arrival[0])]
    assert [names[id(seat(scheduler))] for _ in arrivals] == expected


def test_the_newest_gives_way_and_comes_back_first() -> None:
    scheduler = make(blocks=4)
    old, new = queue(scheduler, BLOCK)[0], queue(scheduler, BLOCK)[0]
    assert [seat(scheduler), seat(scheduler)] == [old, new]
    scheduler.make_room_to_decode()
    assert scheduler.decoding == [old, new]
    queued = queue(scheduler, 1)[0]
    for sequence in (old, new):
        sequence.kv_len = 2 * BLOCK
    scheduler.make_room_to_decode()
    assert scheduler.decoding == [old]
    assert scheduler.preemptions == 1
    scheduler.remove(old)
    assert scheduler.next_to_prefill() is new
    assert queued.slot < 0


def test_a_less_urgent_one_gives_way_though_it_is_older() -> None:
    scheduler = make(blocks=4)
    casual = queue(scheduler, BLOCK, priority=1)[0]
    seat(scheduler)
    urgent = queue(scheduler, BLOCK, priority=0)[0]
    seat(scheduler)
    for sequence in (casual, urgent):
        sequence.kv_len = 2 * BLOCK
        sequence.blocks = 2
    scheduler._free_blocks = 0
    scheduler.make_room_to_decode()
    assert scheduler.decoding == [urgent]


def test_a_head_that_does_not_fit_is_not_overtaken() -> None:
    scheduler = make(blocks=4)
    queue(scheduler, BLOCK)
    seat(scheduler)
    queue(scheduler, 4 * BLOCK)
    queue(scheduler, 1)
    assert scheduler.next_to_prefill() is None
