"""The engines and targets that a configuration asks for."""

from __future__ import annotations

import itertools

from engine.supervise import Backoff
from gateway.config.snapshot import Snapshot
from gateway.control.fallback import FallbackPolicy
from gateway.control.fleet import BuildEngine, Fleet, Pool, Replica
from gateway.routing.config import ModelSpec

LONGEST_RESTART_DELAY_S = 60.0


def build_fleet(snapshot: Snapshot, build: BuildEngine) -> Fleet:
    """Every engine the configuration asks for, not started."""
    settings = snapshot.settings
    delay = settings.restart_delay_s
    backoff = Backoff(first=delay, most=max(delay, LONGEST_RESTART_DELAY_S))
    pools = [
        Pool(replicas_of(model, build, backoff), settings.carry_on_wait_s, model)
        for model in snapshot.routing.models
    ]
    fallback = settings.fallback_config()
    return Fleet(
        pools,
        Replica(fallback, build, backoff) if fallback is not None else None,
        FallbackPolicy.parse(settings.fallback_policy),
    )


def replicas_of(model: ModelSpec, build: BuildEngine, backoff: Backoff) -> list[Replica]:
    """The engines of one model in this process, numbered through all its targets."""
    numbers = itertools.count()
    return [
        Replica(
            target.engine, build, backoff, next(numbers), target=target.name, weight=target.weight
        )
        for target in model.locals
        for _ in range(target.replicas)
    ]
