"""Log-probabilities of the model's own distribution, before any sampling option."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engine.base import TokenLogprob

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]

SEARCH_DEPTHS = (np.float32(4), np.float32(8), np.float32(16), np.float32(32))
"""How far below the highest logit to look for the likeliest tokens, one after another."""

_ROWS_AT_ONCE = 16


def token_logprobs(
    logits: Logits, chosen: Sequence[int], alternatives: Sequence[int]
) -> list[TokenLogprob]:
    """One entry per row.

    Args:
        logits: [rows, vocab], finite; not changed.
        chosen: the token of each row.
        alternatives: how many of the likeliest tokens to list, per row.
    """
    entries: list[TokenLogprob] = []
    for start in range(0, len(logits), _ROWS_AT_ONCE):  # bounds the temporary of exp
        rows = slice(start, start + _ROWS_AT_ONCE)
        entries += _entries(logits[rows], chosen[rows], alternatives[rows])
    return entries


def _entries(
    logits: Logits, chosen: Sequence[int], alternatives: Sequence[int]
) -> list[TokenLogprob]:
    highest = logits.max(axis=1)
    total = np.exp(logits - highest[:, None]).sum(axis=1)
    normaliser = highest.astype(np.float64) + np.log(total, dtype=np.float64)
    own = logits[np.arange(len(logits)), chosen] - normaliser
    entries = []
    for row, (token, count) in enumerate(zip(chosen, alternatives, strict=True)):
        top: tuple[tuple[int, float], ...] = ()
        if count:
            ids = likeliest(logits[row], count)
            values = logits[row, ids] - normaliser[row]
            top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
        entries.append(TokenLogprob(token, float(own[row]), top))
    return entries


def likeliest(row: Logits, count: int) -> Ids:
    """Ids of the ``count`` largest logits of ``row``, largest first, ties by id."""
    ids, values = at_least(row, min(count, len(row)))
    order = np.argsort(-values, kind="stable")
    return ids[order[:count]]


def at_least(row: Logits, count: int) -> tuple[Ids, Logits]:
    """Ids, ascending, and values of all logits down to some depth: ``count`` or more.

    Much cheaper than a partition of the whole vocabulary, since few logits come near the
    highest.
    """
    highest = row.max()
    for depth in SEARCH_DEPTHS:
        ids = np.flatnonzero(row >= highest - depth)
        if len(ids) >= count:
            return ids, row[ids]
    return np.arange(len(row)), row
