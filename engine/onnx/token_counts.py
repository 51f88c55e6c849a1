"""How often each token was seen, kept as short arrays for the penalties."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from engine.base import SamplingParams


class TokenCounts:
    """Distinct tokens of an output, and of the prompt where that matters.

    Attributes:
        size: number of distinct tokens.
    """

    __slots__ = ("_at", "_ids", "_times", "size")

    def __init__(self, prompt: Iterable[int]) -> None:
        seen = list(dict.fromkeys(prompt))
        self._at = {token: i for i, token in enumerate(seen)}
        self._ids = np.array(seen, np.int64)
        self._times = np.zeros(len(seen), np.float32)
        self.size = len(seen)

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        """Distinct tokens [size]."""
        return self._ids[: self.size]

    @property
    def times(self) -> npt.NDArray[np.float32]:
        """Occurrences in the output [size]; 0 for tokens of the prompt only."""
        return self._times[: self.size]

    def add(self, token: int) -> None:
        """Count one output token."""
        at = self._at.get(token)
        if at is None:
            at = self._at[token] = self.size
            if at == len(self._ids):
                room = max(32, at)
                self._ids = np.concatenate([self._ids, np.zeros(room, np.int64)])
                self._times = np.concatenate([self._times, np.zeros(room, np.float32)])
            self._ids[at] = token
            self.size += 1
        self._times[at] += 1


def counts_for(sampling: SamplingParams, prompt: Iterable[int]) -> TokenCounts | None:
    """The counts that the penalties of ``sampling`` need, or None without penalties."""
    if sampling.repetition_penalty != 1:
        return TokenCounts(prompt)
    if sampling.presence_penalty or sampling.frequency_penalty:
        return TokenCounts(())
    return None
