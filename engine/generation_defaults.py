"""Sampling that a model's authors recommend, from its ``generation_config.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# Name there and here, and the values that make sense. Anything else is left to the caller.
_BOUNDS = {
    "temperature": (0.0, 2.0),
    "top_p": (1e-6, 1.0),
    "top_k": (0, 1_000_000),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (1e-3, 100.0),
}


def default_sampling(generation_config: Mapping[str, Any]) -> dict[str, float]:
    """Defaults for requests that do not say otherwise, under SamplingParams' names.

    ``do_sample: false`` means greedy, as in transformers' ``generate``. Values out of
    bounds are left out: a model's file must not break every request.
    """
    found: dict[str, float] = {}
    for name, (low, high) in _BOUNDS.items():
        value = generation_config.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if math.isfinite(value) and low <= value <= high:
            found[name] = int(value) if name == "top_k" else float(value)
    if generation_config.get("do_sample") is False:
        found["temperature"] = 0.0
    return found
