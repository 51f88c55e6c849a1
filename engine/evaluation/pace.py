"""Milliseconds per generated token of several variants, measured in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence

from engine.onnx.session import ModelSession

ROUNDS = 9
STEPS = 16
PROMPT = 32


def decode_ms(sessions: Mapping[str, ModelSession], tokens: Sequence[int]) -> dict[str, float]:
    """Median over rounds of the time of one decode step at batch 1, per variant.

    Every round has every variant, in an order that rotates, so that what else the machine does
    falls on all of them alike.

    Args:
        tokens: at least two; the first ones are the prompt, repeated if they are few.
    """
    prompt = [tokens[at % len(tokens)] for at in range(PROMPT)]
    for session in sessions.values():
        session.prefill(0, 0, prompt, wanted=1)
    names = list(sessions)
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(ROUNDS):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            session = sessions[name]
            began = time.perf_counter()
            for step in range(STEPS):
                session.decode([prompt[step]], [PROMPT + step])
            found[name].append((time.perf_counter() - began) / STEPS * 1000)
    return {name: statistics.median(times) for name, times in found.items()}


ROOM = PROMPT + STEPS
"""Tokens that a session needs room for."""
