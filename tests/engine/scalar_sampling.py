"""One token chosen the slow and obvious way, in double precision, as a reference."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from engine.base import SamplingParams


def edited_logits(
    logits: list[float],
    sampling: SamplingParams,
    prompt: list[int],
    output: list[int],
    stop_ids: frozenset[int],
) -> list[float]:
    """Logits after masks, bias and penalties."""
    x = [float(value) for value in logits]
    if sampling.allowed_token_ids is not None:
        x = [v if i in sampling.allowed_token_ids else -math.inf for i, v in enumerate(x)]
    banned = set(stop_ids) if len(output) < sampling.min_tokens else set()
    for *before, last in sampling.bad_words:
        if not before or (len(before) <= len(output) and output[-len(before) :] == before):
            banned.add(last)
    for token in banned:
        x[token] = -math.inf
    for token, bias in sampling.logit_bias.items():
        x[token] += bias
    seen, counts = {*prompt, *output}, Counter(output)
    for token in seen if sampling.repetition_penalty != 1 else ():
        if x[token] > 0:
            x[token] /= sampling.repetition_penalty
        else:
            x[token] *= sampling.repetition_penalty
    for token, times in counts.items():
        x[token] -= sampling.frequency_penalty * times + sampling.presence_penalty
    return x


def probabilities(x: list[float], sampling: SamplingParams) -> dict[int, float]:
    """What each token that passes the filters is chosen with; ties at a border pass."""
    highest = max(x)
    weights = {
        i: math.exp((value - highest) / sampling.temperature)
        for i, value in enumerate(x)
        if value > -math.inf
    }
    weights = {i: w for i, w in weights.items() if w >= sampling.min_p}
    if sampling.top_k:
        kth = sorted(weights.values(), reverse=True)[: sampling.top_k][-1]
        weights = {i: w for i, w in weights.items() if w >= kth}
    if sampling.top_p < 1:
        wanted, running, last = sampling.top_p * sum(weights.values()), 0.0, 0.0
        for weight in sorted(weights.values(), reverse=True):
            last = weight
            running += weight
            if running >= wanted:
                break
        weights = {i: w for i, w in weights.items() if w >= last}
    total = sum(weights.values())
    return {i: w / total for i, w in sorted(weights.items())}


def distance_to_choice(chosen: int, draw: float, odds: dict[int, float]) -> float:
    """How far ``draw`` lies outside of the chosen token's share of [0, 1); 0 when inside."""
    below = 0.0
    for token, share in odds.items():
        if token == chosen:
            return max(0.0, below - draw, draw - (below + share))
        below += share
    return math.inf


def log_softmax(logits: np.ndarray) -> np.ndarray:
    x = logits.astype(np.float64)
    x -= x.max()
    return x - np.log(np.exp(x).sum())
