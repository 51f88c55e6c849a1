"""Options that change logits before a token is chosen: bias, penalties, bans, masks."""

from __future__ import annotations

from collections.abc import Sequence as Items

import numpy as np
import numpy.typing as npt

from engine.base import SamplingParams
from engine.onnx.logprobs import Logits
from engine.onnx.sequence import Sequence
from engine.structured.constraint import keep_allowed

Ids = npt.NDArray[np.int64]

_BANNED = np.float32(-np.inf)


def edits_logits(sequence: Sequence) -> bool:
    """Whether any option of ``sequence`` changes its logits, now or later."""
    s = sequence.sampling
    return bool(
        sequence.counts is not None
        or s.logit_bias
        or s.bad_words
        or s.allowed_token_ids is not None
        or (s.min_tokens and sequence.output.stop_ids)
        or sequence.constraint is not None
    )


class LogitEdits:
    """The edits of one batch, prepared once and applied at every step.

    They are applied in vLLM's order: masks and bans, bias, penalties.
    """

    def __init__(self, sequences: Items[Sequence]) -> None:
        rows = [(row, s) for row, s in enumerate(sequences) if edits_logits(s)]
        self.rows = [row for row, _ in rows]
        """Rows that may be changed."""
        self._allowed = [
            (row, np.array(s.sampling.allowed_token_ids, np.int64))
            for row, s in rows
            if s.sampling.allowed_token_ids is not None
        ]
        self._constraints = [(row, s.constraint) for row, s in rows if s.constraint is not None]
        self._banning = [
            (row, s) for row, s in rows if s.sampling.bad_words or s.sampling.min_tokens
        ]
        self._bias = _concatenated_bias([(row, s.sampling) for row, s in rows])
        self._penalties = _Penalties([(row, s) for row, s in rows if s.counts is not None])

    def apply(self, logits: Logits) -> None:
        """Change ``logits`` [rows, vocab] in place."""
        for row, ids in self._allowed:
            _keep_only(logits[row], ids)
        for row, constraint in self._constraints:
            keep_allowed(logits[row], constraint.allowed_mask())
        for row, sequence in self._banning:
            banned = banned_next(sequence)
            if banned:
                logits[row, banned] = _BANNED
        if self._bias is not None:
            rows, ids, values = self._bias
            logits[rows, ids] += values
        self._penalties.apply(logits)


def banned_next(sequence: Sequence) -> list[int]:
    """Tokens that would end the output too early or complete a bad word."""
    sampling = sequence.sampling
    banned: list[int] = []
    if sequence.output_len < sampling.min_tokens:
        banned += sequence.output.stop_ids
    for *before, last in sampling.bad_words:
        length = len(before)
        if length <= sequence.output_len and (not before or sequence.tokens[-length:] == before):
            banned.append(last)
    return banned


def _keep_only(row: Logits, ids: Ids) -> None:
    kept = row[ids]
    row.fill(_BANNED)
    row[ids] = kept


def _concatenated_bias(
    rows: Items[tuple[int, SamplingParams]],
) -> tuple[Ids, Ids, Logits] | None:
    entries = [(row, i, bias) for row, s in rows for i, bias in s.logit_bias.items()]
    if not entries:
        return None
    at, ids, values = zip(*entries, strict=True)
    return np.array(at), np.array(ids), np.array(values, np.float32)


class _Penalties:
    """Presence, frequency and repetition penalties over the tokens seen so far."""

    def __init__(self, rows: Items[tuple[int, Sequence]]) -> None:
        self._counts = [s.counts for _, s in rows if s.counts is not None]
        self._rows = np.array([row for row, _ in rows], np.int64)
        sampling = [s.sampling for _, s in rows]
        self._presence = np.array([s.presence_penalty for s in sampling], np.float32)
        self._frequency = np.array([s.frequency_penalty for s in sampling], np.float32)
        self._repetition = np.array([s.repetition_penalty for s in sampling], np.float32)

    def apply(self, logits: Logits) -> None:
        sizes = [counts.size for counts in self._counts]
        if not any(sizes):
            return
        rows = np.repeat(self._rows, sizes)
        ids = np.concatenate([counts.ids for counts in self._counts])
        times = np.concatenate([counts.times for counts in self._counts])
        values = logits[rows, ids]
        repetition = np.repeat(self._repetition, sizes)
        values = np.where(values > 0, values / repetition, values * repetition)
        values -= np.repeat(self._frequency, sizes) * times
        values -= np.repeat(self._presence, sizes) * (times > 0)
        logits[rows, ids] = values
