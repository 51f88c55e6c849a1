"""The plan: formula first, then the simulation until it agrees.

The formula of ``queueing`` gives a number of replicas; each gets an equal share of the
arrivals, as if a coin sent every request somewhere (a balancer that looks at load does better).
The simulation of one replica then confirms the answer or adds replicas until the target holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from engine.capacity import CapacityError
from engine.capacity.kv import KvLayout
from engine.capacity.queueing import Estimate, estimate, pairs, prefill_steps
from engine.capacity.roofline import StepTime, Work
from engine.capacity.simulate import Outcome, Replica, arrivals, simulate
from engine.capacity.traffic import Traffic

MAX_REPLICAS = 10_000
_GROWTH = 1.15  # of the replicas from one simulated try to the next


@dataclass(frozen=True, slots=True)
class Target:
    """What a request may have to wait, at a percentile. None: no bound.

    Attributes:
        ttft, itl: seconds.
        share: the percentile, 0 to 1.
        headroom: most of a replica's time or seats that may be used on average.
    """

    ttft: float | None = None
    itl: float | None = None
    share: float = 0.95
    headroom: float = 0.7


@dataclass(frozen=True, slots=True)
class System:
    """One replica's nature, whatever it runs on.

    Attributes:
        seats: MAX_NUM_SEQS, at most what fits.
        budget: tokens of a step.
        why: names the bound that a step of the given work hits, for messages.
    """

    step: StepTime
    layout: KvLayout
    blocks: int
    seats: int
    budget: int
    why: Callable[[Work], str]

    def seats_for(self, traffic: Traffic) -> int:
        """Sequences of mean length at their end that fit together."""
        mean = math.ceil(traffic.prompt.mean + traffic.output.mean)
        return max(1, min(self.seats, self.blocks // self.layout.blocks(mean)))


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas, and what to expect of each.

    Attributes:
        by_formula: replicas that the formula alone asks for.
        outcome: the simulation of one replica under its share of the traffic.
        throughput: output tokens per second of one replica that is kept full.
    """

    replicas: int
    by_formula: int
    estimate: Estimate
    outcome: Outcome
    seats: int
    throughput: float


def decide(
    system: System, traffic: Traffic, target: Target, requests: int = 2000, seed: int = 1
) -> Decision:
    """The fewest replicas that hold the target. Raises CapacityError where none can."""
    _possible(system, traffic, target)
    seats = system.seats_for(traffic)

    def at(count: int) -> Estimate:
        share = replace(traffic, rate=traffic.rate / count)
        window = system.layout.window
        return estimate(system.step, share, seats, system.budget, target.share, window)

    best = at(MAX_REPLICAS)
    at_best = (
        f"p{target.share * 100:g} TTFT would be {best.ttft * 1000:.4g} ms and ITL "
        f"{best.itl * 1000:.3g} ms"
    )
    by_formula = _smallest(lambda n: _holds(at(n), target), at_best)
    count = by_formula
    while True:
        outcome = _simulated(system, replace(traffic, rate=traffic.rate / count), requests, seed)
        if _confirmed(outcome, target):
            break
        count = max(count + 1, math.ceil(count * _GROWTH))
        if count > MAX_REPLICAS:
            raise CapacityError(
                f"even {MAX_REPLICAS} replicas do not hold the target in the simulation: "
                f"{_missed(outcome, target)}"
            )
    return Decision(count, by_formula, at(count), outcome, seats, full_speed(system, traffic))


def full_speed(system: System, traffic: Traffic) -> float:
    """Output tokens per second when every seat is taken and every answer makes room for the
    next prompt: seats / (output steps + the prefills that they share the time with)."""
    seats = system.seats_for(traffic)
    context = traffic.prompt.mean + traffic.output.mean / 2
    window = system.layout.window
    work = Work(seats, seats * context, seats * (min(context, window) if window else context))
    decode = system.step(work)
    prompt = max(1, round(traffic.prompt.mean))
    prefill, steps = prefill_steps(system.step, prompt, system.budget, work)
    # The steps that hold a prefill give every seat a token too.
    lifetime = traffic.output.mean * decode + seats * max(0.0, prefill - steps * decode)
    return seats * traffic.output.mean / lifetime


def _smallest(holds: Callable[[int], bool], at_best: str) -> int:
    low, high = 0, 1
    while not holds(high):
        low, high = high, high * 2
        if high > MAX_REPLICAS:
            raise CapacityError(
                f"even {MAX_REPLICAS} replicas, each nearly idle, do not hold the target by the "
                f"formula: {at_best}"
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _holds(found: Estimate, target: Target) -> bool:
    return (
        found.utilization <= target.headroom
        and (target.ttft is None or found.ttft <= target.ttft)
        and (target.itl is None or found.itl <= target.itl)
    )


def _confirmed(outcome: Outcome, target: Target) -> bool:
    return (target.ttft is None or outcome.ttft_at(target.share) <= target.ttft) and (
        target.itl is None or outcome.itl_at(target.share) <= target.itl
    )


def _missed(outcome: Outcome, target: Target) -> str:
    return (
        f"p{target.share * 100:g} TTFT {outcome.ttft_at(target.share):.3g} s, "
        f"ITL {outcome.itl_at(target.share) * 1000:.3g} ms"
    )


def _simulated(system: System, traffic: Traffic, requests: int, seed: int) -> Outcome:
    replica = Replica(system.step, system.layout, system.seats, system.blocks, system.budget)
    return simulate(replica, list(arrivals(traffic, requests, seed)))


def _possible(system: System, traffic: Traffic, target: Target) -> None:
    """Raise CapacityError where a request alone on a replica already misses the target."""
    prompt = traffic.prompt.percentile(target.share)
    alone = Work(1, prompt + 1, prompt + 1)
    gap = system.step(alone)
    if target.itl is not None and gap > target.itl:
        raise CapacityError(
            f"no number of replicas gives an ITL of {target.itl * 1000:g} ms: one sequence alone "
            f"takes {gap * 1000:.3g} ms per token, because {system.why(alone)}"
        )
    first, _ = prefill_steps(system.step, prompt, system.budget, Work())
    part = min(prompt, system.budget)
    work = Work(prefill=part, prefill_pairs=pairs(0, part))
    if target.ttft is not None and first > target.ttft:
        raise CapacityError(
            f"no number of replicas gives a TTFT of {target.ttft * 1000:g} ms: a prompt of "
            f"{prompt} tokens (p{target.share * 100:g}) alone takes {first * 1000:.4g} ms, because "
            f"{system.why(work)}"
        )
