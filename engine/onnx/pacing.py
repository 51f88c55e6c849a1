"""How many prompt tokens may run between two decode steps, from what steps measured."""

from __future__ import annotations

MIN_CHUNK = 16
# With nothing decoding only cancellation and newcomers wait for a chunk to end.
_IDLE_CHUNK_S = 0.25
_NEWEST_WEIGHT = 0.25


class Pacer:
    """Sizes prefill chunks so that running streams keep their rhythm.

    A chunk between two decode steps makes the gap between two tokens decode + chunk, which
    may be ``itl_ratio`` times the gap without it.

    Args:
        itl_ratio: longest gap as a multiple of the usual one, above 1.
        max_chunk: most tokens of one chunk.
    """

    def __init__(self, itl_ratio: float, max_chunk: int) -> None:
        self._itl_ratio = itl_ratio
        self._max_chunk = max_chunk
        self._token_s: float | None = None
        self._step_s: dict[int, float] = {}

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Learn from a prefill run."""
        self._token_s = _average(self._token_s, seconds / tokens)

    def decoded(self, width: int, seconds: float) -> None:
        """Learn from a decode step of ``width`` sequences."""
        self._step_s[width] = _average(self._step_s.get(width), seconds)

    def chunk(self, width: int) -> int:
        """Tokens that may be prefilled now, with ``width`` sequences decoding."""
        if self._token_s is None:
            return MIN_CHUNK
        if width == 0:
            seconds = _IDLE_CHUNK_S
        elif self._step_s:
            nearest = min(self._step_s, key=lambda known: abs(known - width))
            seconds = self._step_s[nearest] * (self._itl_ratio - 1)
        else:
            return MIN_CHUNK
        tokens = int(seconds / self._token_s) // MIN_CHUNK * MIN_CHUNK
        return max(MIN_CHUNK, min(tokens, self._max_chunk))


def _average(old: float | None, new: float) -> float:
    return new if old is None else old + _NEWEST_WEIGHT * (new - old)
