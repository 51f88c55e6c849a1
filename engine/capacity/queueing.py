"""Queues with closed answers, and the plan's estimate from them.

Erlang's C formula and the Pollaczek-Khinchine formula as in Kleinrock, Queueing Systems, vol. 1
(1975). The estimate treats a replica as two queues in a row: one server for prefills, and as
many seats as fit for decoding; the simulation of ``simulate`` has none of its simplifications.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

from engine.capacity.roofline import StepTime, Work
from engine.capacity.traffic import Traffic

_ROUNDS = 200
_SAMPLES = 50  # prompts that stand for the distribution
_CLOSE = 1e-6


def erlang_c(servers: int, load: float) -> float:
    """Probability that a customer of an M/M/c queue waits. ``load``: arrivals times service
    time, in servers; at or beyond ``servers`` everyone waits."""
    if load >= servers:
        return 1.0
    blocking = 1.0  # Erlang B by its recursion, which does not overflow
    for count in range(1, servers + 1):
        blocking = load * blocking / (count + load * blocking)
    return blocking / (1 - load / servers * (1 - blocking))


def mmc_wait(rate: float, service: float, servers: int) -> float:
    """Mean seconds that a customer of an M/M/c queue waits; infinite when overloaded."""
    load = rate * service
    if load >= servers:
        return math.inf
    return erlang_c(servers, load) * service / (servers - load)


def mg1_wait(rate: float, mean: float, second_moment: float) -> float:
    """Mean seconds that a customer of an M/G/1 queue waits; infinite when overloaded."""
    load = rate * mean
    return math.inf if load >= 1 else rate * second_moment / (2 * (1 - load))


def exceeding(probability: float, mean: float, share: float) -> float:
    """The wait that only 1 - ``share`` of the customers exceed, when a wait occurs with
    ``probability`` and is then exponential. ``mean`` is over all customers."""
    if probability <= 1 - share or mean == 0:
        return 0.0
    if math.isinf(mean):
        return math.inf
    return mean / probability * math.log(probability / (1 - share))


@dataclass(frozen=True, slots=True)
class Estimate:
    """One replica in a steady state, by formula.

    Attributes:
        running: mean sequences that decode.
        step: mean seconds per step, which is the mean gap between a sequence's tokens.
        itl: the gap at the wanted percentile: a step with a full prefill chunk, where such
            steps are frequent enough to reach it.
        ttft: seconds to the first token at the wanted percentile.
        utilization: of what is scarcest: prefill time or seats. 1 or more is overload.
    """

    running: float
    step: float
    itl: float
    ttft: float
    utilization: float

    @property
    def stable(self) -> bool:
        return self.utilization < 1


_OVERLOADED = Estimate(math.inf, math.inf, math.inf, math.inf, math.inf)


def pairs(before: int, tokens: int) -> float:
    """How many tokens ``tokens`` prompt tokens look back on together, behind ``before``."""
    return tokens * before + tokens * (tokens + 1) / 2


def prefill_steps(step: StepTime, tokens: int, budget: int, beside: Work) -> tuple[float, int]:
    """Seconds and steps of one prompt, computed in chunks beside the decoding of ``beside``.

    Args:
        budget: tokens of a step, decoded ones included, as vLLM's MAX_NUM_BATCHED_TOKENS.
    """
    chunk = max(1, budget - beside.decoding)
    total, done, steps = 0.0, 0, 0
    while done < tokens:
        part = min(chunk, tokens - done)
        total += step(replace(beside, prefill=part, prefill_pairs=pairs(done, part)))
        done, steps = done + part, steps + 1
    return total, steps


def estimate(
    step: StepTime, traffic: Traffic, seats: int, budget: int, share: float, window: int | None
) -> Estimate:
    """The steady state of one replica that gets all of ``traffic``.

    A share ``busy`` of the time goes to steps that also prefill; the others take D(N). That
    gives the mean gap, and by Little's law N = rate * (outputs - 1) * gap. The first token
    waits for prompts before it (M/G/1) and for a seat (M/M/c), then for its own prefill.

    Args:
        share: the percentile wanted, 0 to 1.
    """
    every = max(1, len(traffic.prompt.quantiles) // _SAMPLES)
    prompts = traffic.prompt.quantiles[every // 2 :: every]
    context = traffic.prompt.mean + traffic.output.mean / 2
    visible = min(context, window) if window else context
    follow_ups = max(0.0, traffic.output.mean - 1)

    def load(count: float) -> Work:
        whole = max(0, round(count))
        return Work(whole, whole * context, whole * visible)

    running = gap = 0.0
    served: list[tuple[float, int]] = []
    for _ in range(_ROUNDS):
        beside = load(min(running, seats))
        served = [prefill_steps(step, tokens, budget, beside) for tokens in prompts]
        busy = traffic.rate * sum(seconds for seconds, _ in served) / len(served)
        if busy >= 1:
            return _OVERLOADED
        mixed = traffic.rate * sum(count for _, count in served) / len(served)
        alone = (1 - busy) / step(load(max(1, min(running, seats))))
        gap = 1 / (mixed + alone)
        wanted = traffic.rate * follow_ups * gap
        if wanted >= seats:
            return _OVERLOADED
        if abs(wanted - running) < _CLOSE * max(1.0, running):
            break
        running = (running + wanted) / 2
    times = sorted(seconds for seconds, _ in served)
    second_moment = sum(seconds * seconds for seconds in times) / len(times)
    wait = mg1_wait(traffic.rate, sum(times) / len(times), second_moment)
    stay = follow_ups * gap
    waiting = exceeding(busy, wait, share)
    seated = erlang_c(seats, running), mmc_wait(traffic.rate, stay, seats)
    waiting += exceeding(*seated, share)
    own = times[math.ceil(share * len(times)) - 1]
    crowd = load(min(seats, running + NormalDist().inv_cdf(share) * math.sqrt(running)))
    itl = step(crowd) if crowd.decoding else gap
    if mixed * gap > 1 - share:  # so many gaps hold a prefill that the percentile is one
        itl = max(itl, prefill_steps(step, min(prompts[-1], budget), budget, crowd)[0])
    return Estimate(
        running, gap, itl, waiting + own + min(1.0, running) * gap / 2, max(busy, running / seats)
    )
