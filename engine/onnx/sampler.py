"""Chooses the next token of every sequence of a batch."""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.base import EngineError, RequestRejected, SamplingParams, TokenLogprob
from engine.checks import NOTHING_ALLOWED
from engine.onnx.logit_edits import LogitEdits
from engine.onnx.logprobs import SEARCH_DEPTHS, Logits, at_least, token_logprobs
from engine.onnx.sequence import Sequence

GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy: dividing by them would overflow."""

NOT_FINITE = "the model produced logits that are not finite"

# Sums over a row are taken in blocks, so that finding a draw needs no running sum of it all.
_CDF_BLOCK = 128

Ids = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


@dataclass(slots=True)
class Choices:
    """One entry per row; a row in ``faults`` has no valid token but the error of its request."""

    tokens: list[int]
    logprobs: list[TokenLogprob | None]
    faults: dict[int, EngineError] = field(default_factory=dict)


class Sampler:
    """The sampling options of one batch, prepared once and used at every step.

    Build a new one when the batch changes. What a row gets depends on that row alone.
    """

    def __init__(self, sequences: Items[Sequence]) -> None:
        self._sequences = list(sequences)
        sampling = [s.sampling for s in sequences]
        self._edits = LogitEdits(sequences)
        self._drawn = [i for i, s in enumerate(sampling) if s.temperature >= GREEDY_BELOW]
        self._greedy = [i for i, s in enumerate(sampling) if s.temperature < GREEDY_BELOW]
        self._reported = [i for i, s in enumerate(sampling) if s.logprobs is not None]
        self._alternatives = [sampling[i].logprobs or 0 for i in self._reported]
        self._plain = not (self._drawn or self._reported or self._edits.rows)
        self._rows = np.arange(len(self._sequences))
        self._draw_options = [sampling[i] for i in self._drawn]

    def choose(self, logits: Logits) -> Choices:
        """Choose from ``logits`` [rows, vocab], which is overwritten."""
        if self._plain:
            best = logits.argmax(axis=1)
            finite = np.isfinite(logits[self._rows, best])
            if finite.all():
                return Choices(best.tolist(), [None] * len(best))
        faults = self._silence_broken_rows(logits)
        raw = logits[self._reported]
        if self._edits.rows:
            with np.errstate(over="ignore"):
                self._edits.apply(logits)
            for row in self._edits.rows:
                highest = logits[row].max()
                if not np.isfinite(highest):
                    fault = self._fault(row) if highest < 0 else EngineError(NOT_FINITE)
                    faults.setdefault(row, fault)
                    logits[row] = 0
        tokens = [0] * len(self._sequences)
        if self._greedy:
            best = (logits if not self._drawn else logits[self._greedy]).argmax(axis=1)
            for row, token in zip(self._greedy, best.tolist(), strict=True):
                tokens[row] = token
        if self._drawn:
            for row, token in zip(self._drawn, self._draw(logits), strict=True):
                tokens[row] = token
        return Choices(tokens, self._report(raw, tokens), faults)

    def _fault(self, row: int) -> RequestRejected:
        """Why no token is allowed, which is a matter of what the request asks for."""
        constraint = self._sequences[row].constraint
        fault = constraint.fault if constraint is not None else None
        return RequestRejected(fault or NOTHING_ALLOWED)

    def _silence_broken_rows(self, logits: Logits) -> dict[int, EngineError]:
        highest = logits.max(axis=1)  # a NaN anywhere in a row makes its maximum NaN
        broken = np.flatnonzero(~np.isfinite(highest)).tolist()
        for row in broken:
            logits[row] = 0
        return {row: EngineError(NOT_FINITE) for row in broken}

    def _report(self, raw: Logits, tokens: list[int]) -> list[TokenLogprob | None]:
        report: list[TokenLogprob | None] = [None] * len(tokens)
        if self._reported:
            chosen = [tokens[row] for row in self._reported]
            entries = token_logprobs(raw, chosen, self._alternatives)
            for row, entry in zip(self._reported, entries, strict=True):
                report[row] = entry
        return report

    def _draw(self, logits: Logits) -> list[int]:
        tokens = []
        for row, options in zip(self._drawn, self._draw_options, strict=True):
            sequence = self._sequences[row]
            draw = sequence.draws.at(sequence.output_len)
            tokens.append(draw_token(logits[row], options, draw))
        return tokens


def draw_token(row: Logits, options: SamplingParams, draw: float) -> int:
    """Choose a token by inverting the cumulative distribution in order of token id.

    Filters apply as in vLLM: min_p, then top_k, then top_p of what is left.

    Args:
        row: [vocab] logits; overwritten.
        draw: uniform in [0, 1).
    """
    if options.top_k == 0 and options.min_p == 0:
        row -= row.max()
        if options.temperature != 1:
            row *= 1 / options.temperature
        if options.top_p == 1:
            return _draw_from_all(row, draw)
        ids, weights = _top_p_of_all(row, options.top_p)
    else:
        ids, weights = _candidates(row, options)
        if options.top_p < 1:
            kept = _nucleus(weights, options.top_p * weights.sum())
            ids, weights = ids[kept], weights[kept]
    return int(ids[_invert(weights, draw)])


def _draw_from_all(z: Logits, draw: float) -> int:
    weights = np.exp(z, out=z)
    whole = len(weights) // _CDF_BLOCK * _CDF_BLOCK
    sums = weights[:whole].reshape(-1, _CDF_BLOCK).sum(axis=1).astype(np.float64)
    sums = np.append(sums, weights[whole:].sum())
    running = sums.cumsum()
    target = draw * running[-1]
    block = int(running.searchsorted(target, side="right"))
    block = min(block, int(np.flatnonzero(sums)[-1]))
    rest = target - (running[block - 1] if block else 0.0)
    inside = weights[block * _CDF_BLOCK : (block + 1) * _CDF_BLOCK].astype(np.float64)
    at = int(inside.cumsum().searchsorted(rest, side="right"))
    return block * _CDF_BLOCK + min(at, int(np.flatnonzero(inside)[-1]))


def _top_p_of_all(z: Logits, top_p: float) -> tuple[Ids, Weights]:
    weights = np.exp(z, out=z)
    wanted = top_p * float(weights.sum())
    for depth in SEARCH_DEPTHS:
        ids = np.flatnonzero(weights >= np.exp(-depth))
        likely = weights[ids].astype(np.float64)
        if likely.sum() >= wanted:
            break
    else:
        ids = np.arange(len(weights))
        likely = weights.astype(np.float64)
    kept = _nucleus(likely, wanted)
    return ids[kept], likely[kept]


def _candidates(row: Logits, options: SamplingParams) -> tuple[Ids, Weights]:
    """Ids, ascending, that pass top_k and min_p; ties with the last of top_k pass."""
    highest, temperature = row.max(), options.temperature
    lowest = -np.inf
    if options.min_p > 0:
        lowest = float(highest) + float(np.log(options.min_p)) * temperature
    if 0 < options.top_k < len(row):
        ids, values = at_least(row, options.top_k)
        kth = np.partition(values, len(values) - options.top_k)[len(values) - options.top_k]
        passing = values >= max(float(kth), lowest)
        ids, values = ids[passing], values[passing]
    else:
        ids = np.flatnonzero(row >= lowest)
        values = row[ids]
    return ids, np.exp((values - highest) / temperature, dtype=np.float64)


def _nucleus(weights: Weights, wanted: float) -> Ids:
    """Positions, ascending, of the fewest largest ``weights`` that sum to ``wanted``; ties
    with the last of them pass."""
    largest_first = np.sort(weights)[::-1]
    last = int(largest_first.cumsum().searchsorted(wanted, side="left"))
    return np.flatnonzero(weights >= largest_first[min(last, len(weights) - 1)])


def _invert(weights: Weights, draw: float) -> int:
    running = weights.cumsum()
    at = int(running.searchsorted(draw * running[-1], side="right"))
    return min(at, len(weights) - 1)
