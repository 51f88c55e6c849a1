"""How one of several targets is chosen.

``two_choices``: the less loaded of two drawn at random (Mitzenmacher, "The Power of Two Choices
in Randomized Load Balancing", IEEE TPDS 12(10), 2001). ``session`` and ``prefix``: consistent
hashing with bounded loads (Mirrokni, Thorup and Zadimoghaddam, SODA 2018): a key's own target
unless that holds more than ``load_factor`` times the average, then the key's next one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

from gateway.routing.ask import Ask
from gateway.routing.config import ModelSpec
from gateway.routing.hashing import ranked


class Target(Protocol):
    """What can answer.

    Attributes:
        name: unique within its model.
        weight: its share relative to the others.
    """

    name: str
    weight: float

    @property
    def tokens(self) -> int:
        """Estimated tokens of the requests that it works on, prompt and output."""

    @property
    def outstanding(self) -> int:
        """Requests queued and running."""


T = TypeVar("T", bound=Target)


def choose(
    spec: ModelSpec, targets: Sequence[T], ask: Ask | None, draw: random.Random
) -> tuple[T, str]:
    """One of at least one targets, and why in a few characters."""
    if len(targets) == 1:
        return targets[0], "only"
    policy = spec.policy
    if policy == "weighted":
        return draw.choices(targets, [target.weight for target in targets])[0], policy
    if policy == "two_choices":
        return min(draw.sample(targets, 2), key=load_of), policy
    key = "" if ask is None else ask.session if policy == "session" else ask.prefix
    if policy in ("session", "prefix") and key:
        return bounded(key, targets, spec.load_factor, policy)
    return min(targets, key=load_of), "least_tokens"


def load_of(target: Target) -> tuple[float, float]:
    """Outstanding work for its weight; requests decide between equals."""
    return target.tokens / target.weight, target.outstanding / target.weight


def bounded(key: str, targets: Sequence[T], factor: float, policy: str) -> tuple[T, str]:
    """The first target in the key's order that has room for one more request."""
    weights = sum(target.weight for target in targets)
    total = sum(target.outstanding for target in targets) + 1
    order = ranked(key, [(target.name, target.weight) for target in targets])
    for position, index in enumerate(order):
        target = targets[index]
        room = math.ceil(factor * total * target.weight / weights)
        if target.outstanding < room:
            return target, policy if not position else f"{policy}:spilled"
    raise AssertionError("the targets cannot all be above their average")
