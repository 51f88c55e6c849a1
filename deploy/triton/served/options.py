"""Sampling options of one request, and the choice of a token. Copied beside ``model.py``."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np


class BadOption(ValueError):
    """An option that the caller has to change; the message says how."""


@dataclass(slots=True)
class Options:
    """Greedy unless a temperature above 0 is asked for.

    Attributes:
        max_tokens: most tokens to generate.
        top_k: 0 for all.
        seed: of this request's own draws; None for a new one each time.
    """

    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    ignore_eos: bool = False

    @classmethod
    def read(cls, given: dict[str, Any]) -> Options:
        """From a JSON object; raises BadOption naming what cannot be used."""
        known = [field.name for field in fields(cls)]
        if strange := sorted(given.keys() - set(known)):
            raise BadOption(f"there is no option {strange[0]!r}, only {', '.join(known)}")
        options = cls(**given)
        for name, low, high in (
            *(("max_tokens", 1, 10**6), ("temperature", 0, 100)),
            *(("top_p", 0, 1), ("top_k", 0, 10**6)),
        ):
            value = getattr(options, name)
            whole = name in ("max_tokens", "top_k")
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise BadOption(f"{name} has to be {'an integer' if whole else 'a number'}")
            if not low <= value <= high:
                raise BadOption(f"{name} has to lie between {low} and {high}")
        if options.seed is not None and (type(options.seed) is not int or options.seed < 0):
            raise BadOption("seed has to be an integer that is not negative")
        if type(options.ignore_eos) is not bool:
            raise BadOption("ignore_eos has to be true or false")
        return options


def choose(logits: Any, options: Options, draws: np.random.Generator) -> int:
    """A token from one row of logits [vocab]."""
    if options.temperature < 1e-5:
        return int(logits.argmax())
    scaled = (logits - logits.max()).astype(np.float64) / options.temperature
    order = np.argsort(-scaled)
    if options.top_k:
        order = order[: options.top_k]
    weights = np.exp(scaled[order])
    weights /= weights.sum()
    if options.top_p < 1:
        # The first token that reaches the threshold is kept.
        kept = int(np.searchsorted(np.cumsum(weights), options.top_p)) + 1
        order, weights = order[:kept], weights[:kept] / weights[:kept].sum()
    return int(draws.choice(order, p=weights))
