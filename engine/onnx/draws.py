"""Uniform draws that depend on a seed and a position only."""

from __future__ import annotations

import secrets

import numpy as np

_WORD = 2**64
_BLOCK = 64


class Draws:
    """One draw in [0, 1) per output position of one choice.

    Philox is counter-based: the draw at a position needs none of those before it, so batch
    mates, preemption and the order of requests change nothing.
    """

    __slots__ = ("_block", "_key", "_values")

    def __init__(self, seed: int | None, choice: int) -> None:
        word = secrets.randbits(64) if seed is None else seed % _WORD
        self._key = np.array([word, choice], np.uint64)
        self._block = -1
        self._values: list[float] = []

    def at(self, position: int) -> float:
        """The draw for the output token at ``position`` (0 is the first)."""
        block, offset = divmod(position, _BLOCK)
        if block != self._block:
            counter = np.array([0, block, 0, 0], np.uint64)
            generator = np.random.Generator(np.random.Philox(key=self._key, counter=counter))
            self._values = generator.random(_BLOCK).tolist()
            self._block = block
        return self._values[offset]
