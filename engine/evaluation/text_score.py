"""Perplexity, agreement and divergence of several variants on the same tokens."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from engine.evaluation.divergence import Totals, add
from engine.evaluation.windows import Window, windows
from engine.onnx.chunks import chunk_length
from engine.onnx.session import ModelSession

Fraction = Callable[[float], None]


@dataclass(slots=True)
class TextScore:
    """What one variant made of the text.

    Attributes:
        tokens_run, seconds: of all model runs, for the time per prompt token.
    """

    totals: Totals = field(default_factory=Totals)
    tokens_run: int = 0
    seconds: float = 0.0


def score_text(
    sessions: Mapping[str, ModelSession],
    tokens: Sequence[int],
    *,
    reference: str | None,
    context: int,
    stride: int,
    report: Fraction = lambda _: None,
) -> dict[str, TextScore]:
    """Run every variant over the same windows of ``tokens``, chunk by chunk in turn.

    In turn, so that a busy moment of the machine slows all of them, and because only one
    chunk's logits per variant are held.

    Args:
        sessions: by name; ``reference`` names the one that the others are compared with.
        context, stride: see ``windows``.
    """
    names = sorted(sessions, key=lambda name: name != reference)
    scores = {name: TextScore() for name in names}
    first = sessions[names[0]]
    ids = np.asarray(tokens, np.int64)
    todo = list(windows(len(ids), context, stride))
    for done, window in enumerate(todo):
        for chunk in _chunks(window, first.max_chunk, first.attention_rows):
            theirs = None
            came = ids[chunk.end - chunk.wanted + 1 : chunk.end + 1]
            for name in names:
                began = time.perf_counter()
                logits = sessions[name].prefill(
                    0, chunk.begin - window.begin, tokens[chunk.begin : chunk.end],
                    wanted=max(1, chunk.wanted),
                )  # fmt: skip
                scores[name].seconds += time.perf_counter() - began
                scores[name].tokens_run += chunk.end - chunk.begin
                if name == reference:
                    theirs = logits
                if chunk.wanted:
                    add(scores[name].totals, logits, came, theirs)
        report((done + 1) / len(todo))
    return scores


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Tokens ``begin`` to ``end`` of the text; after the last ``wanted`` a scored one comes."""

    begin: int
    end: int
    wanted: int


def _chunks(window: Window, most: int, rows: int) -> Iterator[_Chunk]:
    begin, last = window.begin, window.end - 1  # nothing is predicted after the last token
    while begin < last:
        end = begin + chunk_length(last - begin, most, rows)
        yield _Chunk(begin, end, max(0, end - max(begin, window.first - 1)))
        begin = end
