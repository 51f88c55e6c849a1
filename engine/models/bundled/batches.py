"""Turns generated conversations into packed training rows of token ids."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from engine.models.bundled.corpus.mix import TRAIN_BANK, Conversation, conversation, conversations
from engine.models.bundled.corpus.source import Source
from engine.models.bundled.template import render
from engine.models.bundled.tokenizer import IM_END, IM_START, token_id

PROMPT_WEIGHT = 0.1
# Only this share of the prompt tokens is predicted at all: the output layer is a fifth of the
# work, and what the user will say next matters little.
PROMPT_SHARE = 0.25
COPY_WEIGHT = 0.25
_CHUNK = 2000


def text_of(item: Conversation) -> str:
    """A conversation as the model sees it, with the reasoning where there is one."""
    if item.think is None:
        return render(item.messages, item.tools)
    prompt = render(
        item.messages[:-1], item.tools, add_generation_prompt=True, enable_thinking=True
    )
    answer = render([item.messages[-1]]).removeprefix("<|im_start|>assistant\n")
    return f"{prompt}{item.think}\n</think>\n\n{answer}"


@dataclass(frozen=True)
class Batch:
    """`ids`, `targets` and `documents` are int64 [rows, length], `weights` float32 of the same
    shape. Tokens see only earlier tokens of their own document; padding has weight 0."""

    ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    weights: NDArray[np.float32]
    documents: NDArray[np.int64]

    def part(self, index: int, count: int) -> Batch:
        """Every `count`-th row, from row `index`."""
        rows = slice(index, None, count)
        return Batch(self.ids[rows], self.targets[rows], self.weights[rows], self.documents[rows])


class Encoder:
    """Token ids and loss weights of a conversation."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.end = token_id(tokenizer, IM_END)
        self.think = token_id(tokenizer, "<think>")
        self.opening = tokenizer.encode(f"{IM_START}assistant\n").ids

    def encode(self, items: list[Conversation], seed: int) -> list[tuple[list[int], list[float]]]:
        """(ids, weights) for each item: 1 for what the assistant says, little for the rest."""
        rng = random.Random(seed)  # noqa: S311
        encoded = self.tokenizer.encode_batch([text_of(item) for item in items])
        return [(found.ids, self._weights(found.ids, rng)) for found in encoded]

    def _weights(self, ids: list[int], rng: random.Random) -> list[float]:
        weights = [PROMPT_WEIGHT if rng.random() < PROMPT_SHARE else 0.0 for _ in ids]
        opening, at = self.opening, 0
        while at < len(ids):
            if ids[at : at + len(opening)] != opening:
                at += 1
                continue
            weights[at : at + len(opening)] = [0.0] * len(opening)
            at += len(opening)
            if at < len(ids) and ids[at] == self.think:
                at += 2  # "<think>\n" belongs to the generation prompt
            while at < len(ids):
                weights[at] = 1.0
                at += 1
                if ids[at - 1] == self.end:
                    break
        return weights


def batches(
    encoder: Encoder,
    seed: int,
    rows: int,
    length: int,
    *,
    long: bool = False,
    finishing: bool = False,
) -> Iterator[Batch]:
    """An endless stream of batches. With `long`, conversations have up to 24 exchanges; with
    `finishing`, more of them have tools."""
    open_rows: list[list[tuple[list[int], list[float]]]] = []
    space: list[int] = []
    full: list[list[tuple[list[int], list[float]]]] = []
    chunk = 0
    while True:
        chunk += 1
        if long:
            items = _long(seed + chunk)
        else:
            items = conversations(seed * 1_000_003 + chunk, _CHUNK, finishing=finishing)
        for ids, weights in encoder.encode(list(items), seed + chunk):
            if len(ids) > length + 1:
                continue
            fits = [at for at, free in enumerate(space) if free >= len(ids)]
            if not fits:
                if len(open_rows) >= 4 * rows:
                    fullest = min(range(len(space)), key=space.__getitem__)
                    full.append(open_rows.pop(fullest))
                    space.pop(fullest)
                open_rows.append([])
                space.append(length + 1)
                fits = [len(space) - 1]
            at = min(fits, key=space.__getitem__)
            open_rows[at].append((ids, weights))
            space[at] -= len(ids)
            if len(full) == rows:
                yield _pack(full, length)
                full = []


def copies(seed: int, rows: int, length: int, pool: NDArray[np.int64]) -> Iterator[Batch]:
    """Rows in which short random sequences of tokens from `pool` come several times.

    Everything the model does with names, numbers and tool arguments is copying, and it learns to
    copy sooner from rows that are nothing else.
    """
    rng = np.random.default_rng(seed)
    while True:
        parts = []
        for _ in range(rows):
            row: list[tuple[list[int], list[float]]] = []
            space = length + 1
            while space > 0:
                once = rng.choice(pool, int(rng.integers(2, 14))).tolist()
                gaps = [rng.choice(pool, int(rng.integers(0, 4))).tolist()
                        for _ in range(int(rng.integers(4, 9)))]  # fmt: skip
                ids, weights = [], []
                for number, gap in enumerate(gaps):
                    ids += gap + once
                    # The first token of a repetition cannot be foreseen.
                    again = COPY_WEIGHT if number else 0.0
                    weights += [0.0] * (len(gap) + 1) + [again] * (len(once) - 1)
                row.append((ids[:space], weights[:space]))
                space -= len(ids)
            parts.append(row)
        yield _pack(parts, length)


def joined(first: Batch, second: Batch) -> Batch:
    """The rows of both."""
    return Batch(
        np.concatenate((first.ids, second.ids)),
        np.concatenate((first.targets, second.targets)),
        np.concatenate((first.weights, second.weights)),
        np.concatenate((first.documents, second.documents)),
    )


def _long(seed: int) -> Iterator[Conversation]:
    source = Source(random.Random(f"long/{seed}"), TRAIN_BANK)  # noqa: S311
    for _ in range(200):
        yield conversation(source, 6 + int(source.rng.random() * 19))


def _pack(rows: list[list[tuple[list[int], list[float]]]], length: int) -> Batch:
    shape = (len(rows), length + 1)
    ids = np.zeros(shape, np.int64)
    weights = np.zeros(shape, np.float32)
    documents = np.zeros(shape, np.int64)
    for row, parts in enumerate(rows):
        at = 0
        for number, (tokens, values) in enumerate(parts, 1):
            stop = at + len(tokens)
            ids[row, at:stop] = tokens
            weights[row, at:stop] = values
            # A document's first token must not be predicted from the one before it.
            weights[row, at] = 0.0
            documents[row, at:stop] = number
            at = stop
    return Batch(ids[:, :-1], ids[:, 1:], weights[:, 1:], documents[:, :-1])
