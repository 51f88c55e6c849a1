"""The simulation against theory, and the formula against the simulation."""

from __future__ import annotations

import heapq
import math
import random

import pytest

from engine.capacity.kv import KvLayout
from engine.capacity.queueing import erlang_c, estimate, exceeding, mg1_wait, mmc_wait
from engine.capacity.roofline import Work
from engine.capacity.simulate import Outcome, Replica, Request, arrivals, simulate
from engine.capacity.traffic import Traffic, parse_lengths

TICK = 0.001
SERVICE_TICKS = 60
FREE = KvLayout(0, 0, 0, None, 16, 1, 1, 1, 0, 0)
SERVICE = SERVICE_TICKS * TICK


def tick(work: Work) -> float:
    """Every step takes as long: a server that only counts."""
    return TICK


def queue(servers: int, load: float, count: int, seed: int, fixed: bool) -> list[Request]:
    """Poisson arrivals; services of SERVICE_TICKS on average, the prefill's step included."""
    source = random.Random(seed)
    rate = load * servers / SERVICE
    now, found = 0.0, []
    for _ in range(count):
        now += source.expovariate(rate)
        ticks = SERVICE_TICKS if fixed else max(1, round(source.expovariate(1 / SERVICE_TICKS)))
        found.append(Request(now, 1, ticks))
    return found


def waits_by_definition(requests: list[Request], servers: int) -> float:
    """Mean wait of the last nine tenths: each takes the server that is free first."""
    free = [0.0] * servers
    waits = []
    for request in requests:
        begin = max(request.arrival, heapq.heappop(free))
        heapq.heappush(free, begin + request.output * TICK)
        waits.append(begin - request.arrival)
    kept = waits[len(waits) // 10 :]
    return sum(kept) / len(kept)


def simulated_wait(requests: list[Request], servers: int) -> float:
    outcome = simulate(Replica(tick, FREE, servers, 10**9, 10**6), requests)
    return sum(outcome.ttft) / len(outcome.ttft) - TICK


@pytest.mark.parametrize(
    ("servers", "load", "fixed"), [(1, 0.8, False), (1, 0.8, True), (4, 0.7, False)]
)
def test_each_wait_is_that_of_the_queue_with_the_same_arrivals(
    servers: int, load: float, fixed: bool
) -> None:
    requests = queue(servers, load, 6000, 1, fixed)
    wanted = waits_by_definition(requests, servers)
    # An arrival is seen when the step under way ends, so up to one step later.
    assert simulated_wait(requests, servers) == pytest.approx(wanted, abs=1.1 * TICK)


@pytest.mark.parametrize(
    ("servers", "load", "fixed", "theory"),
    [
        (1, 0.6, False, mmc_wait(0.6 / SERVICE, SERVICE, 1)),
        (1, 0.6, True, mg1_wait(0.6 / SERVICE, SERVICE, SERVICE**2)),
        (3, 0.7, False, mmc_wait(3 * 0.7 / SERVICE, SERVICE, 3)),
    ],
    ids=["M/M/1", "M/D/1", "M/M/3"],
)
def test_mean_waits_are_those_of_theory_within_a_tenth(
    servers: int, load: float, fixed: bool, theory: float
) -> None:
    runs = [simulated_wait(queue(servers, load, 4000, s, fixed), servers) for s in range(8)]
    assert sum(runs) / len(runs) == pytest.approx(theory, rel=0.1)


def test_formulas_meet_where_they_must() -> None:
    assert erlang_c(1, 0.3) == pytest.approx(0.3)
    # Kleinrock's M/M/2 at load 1: a third of the customers wait.
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert mmc_wait(0.5, 1.0, 1) == pytest.approx(mg1_wait(0.5, 1.0, 2.0))
    assert mg1_wait(0.5, 1.0, 1.0) == pytest.approx(0.5)
    assert math.isinf(mmc_wait(2.0, 1.0, 2))
    assert math.isinf(mg1_wait(1.0, 1.0, 1.0))
    assert erlang_c(300, 250.0) < 0.01
    # Half wait, exponentially with mean 2: a tenth waits longer than 2 ln 5.
    assert exceeding(0.5, 1.0, 0.9) == pytest.approx(2 * math.log(5))
    assert exceeding(0.05, 1.0, 0.9) == 0


def linear(work: Work) -> float:
    """A step like a GPU's: reading takes 10 ms and a little per sequence, prefill is compute."""
    return max(0.010 + 2e-7 * work.context, 1e-4 * (work.prefill + work.decoding)) + 0.0005


@pytest.mark.parametrize("rate", [0.5, 2.0, 5.0])
def test_the_formula_is_near_the_simulation(rate: float) -> None:
    traffic = Traffic(rate, parse_lengths("lognormal:400,1000"), parse_lengths("exponential:150"))
    seats, budget = 64, 2048
    formula = estimate(linear, traffic, seats, budget, 0.95, None)
    replica = Replica(linear, FREE, seats, 10**9, budget)
    outcome = simulate(replica, list(arrivals(traffic, 3000, 1)))

    assert formula.running == pytest.approx(outcome.running, rel=0.15)
    assert formula.ttft == pytest.approx(outcome.ttft_at(0.95), rel=0.3)
    assert formula.step == pytest.approx(_mean_gap(outcome), rel=0.1)


def test_overload_is_recognised() -> None:
    long = Traffic(1000.0, parse_lengths("400"), parse_lengths("150"))
    assert not estimate(linear, long, 64, 2048, 0.95, None).stable
    crowded = Traffic(2.0, parse_lengths("40"), parse_lengths("150"))
    assert not estimate(linear, crowded, 2, 2048, 0.95, None).stable


def test_the_same_seed_gives_the_same_run() -> None:
    traffic = Traffic(2.0, parse_lengths("uniform:10-300"), parse_lengths("exponential:50"))

    def run(seed: int) -> Outcome:
        return simulate(Replica(linear, FREE, 8, 10**9, 256), list(arrivals(traffic, 300, seed)))

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_first_come_first_served() -> None:
    requests = [Request(i * 1e-4, 10, 20) for i in range(12)]
    simulate(Replica(tick, FREE, 3, 10**9, 10**6), requests)
    firsts = [request.first for request in requests]
    assert firsts == sorted(firsts)


def test_every_token_is_counted_once() -> None:
    requests = [Request(0.003 * i, 5 + i % 7, 1 + i % 23) for i in range(200)]
    outcome = simulate(Replica(tick, FREE, 6, 10**9, 8), requests, warmup=0)
    assert len(outcome.ttft) == len(outcome.e2e) == 200
    assert sum(count for _, count in outcome.gaps) == sum(r.output - 1 for r in requests)


def test_a_long_prompt_is_computed_in_chunks_beside_the_others() -> None:
    requests = [Request(0.0, 1, 100), Request(0.0105, 100, 2)]
    seen: list[int] = []

    def watched(work: Work) -> float:
        seen.append(work.prefill)
        return TICK

    simulate(Replica(watched, FREE, 4, 10**9, 33), requests, warmup=0)
    chunks = [tokens for tokens in seen if tokens > 1]
    assert chunks == [32, 32, 32, 4]


def test_little_room_makes_the_last_one_give_way() -> None:
    layout = KvLayout(16, 16, 0, None, 16, 16, 1, 1, 0, 0)
    requests = [Request(0.0, 16, 64), Request(0.0, 16, 64), Request(0.0, 16, 64)]
    outcome = simulate(Replica(tick, layout, 3, 10, 10**6), requests, warmup=0)
    assert outcome.preemptions > 0
    assert outcome.peak_blocks <= 10
    assert sum(count for _, count in outcome.gaps) == 3 * 63
    assert requests[0].first <= requests[1].first <= requests[2].first


def _mean_gap(outcome: Outcome) -> float:
    total = sum(count for _, count in outcome.gaps)
    return sum(seconds * count for seconds, count in outcome.gaps) / total
