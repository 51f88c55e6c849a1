"""How many prompt tokens may run between two decode steps, from what steps measured."""

from __future__ import annotations

from collections import defaultdict, deque
from statistics import median

MIN_CHUNK = 4
_FIRST_CHUNK = 16
# With nothing decoding only cancellation and newcomers wait for a chunk to end.
_IDLE_GAP_S = 0.25
# The median of so few follows a change at once and leaves out single stalls of the machine.
_REMEMBERED = 3


class Pacer:
    """Sizes prefill chunks so that running streams keep their rhythm.

    Prefill runs between two decode steps make the gap between two tokens longer; it may
    become ``itl_ratio`` times the gap without them.

    Args:
        itl_ratio: longest gap as a multiple of the usual one, above 1.
        max_chunk: most tokens of one run.
    """

    def __init__(self, itl_ratio: float, max_chunk: int) -> None:
        self._itl_ratio = itl_ratio
        self._max_chunk = max_chunk
        self._token_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._step_s: dict[int, deque[float]] = defaultdict(lambda: deque(maxlen=_REMEMBERED))
        self._step_after_prefill_s = self._step_s.copy()
        self._spent_s = 0.0
        self._offered = 0

    def open_gap(self) -> None:
        """Prefill may begin anew, a decode step having been made if one was due."""
        self._spent_s = 0.0

    def room(self, width: int) -> int:
        """Tokens that the next prefill run may take with ``width`` sequences decoding; 0 when
        the gap is full."""
        gap_s = self._gap_s(width)
        # A run has a fixed cost, so the rest of a gap is not worth another one.
        if self._spent_s > gap_s / 2:
            self._offered = 0
        elif not self._token_s:
            self._offered = min(_FIRST_CHUNK, self._max_chunk)
        else:
            tokens = int((gap_s - self._spent_s) / median(self._token_s))
            self._offered = max(MIN_CHUNK, min(tokens, self._max_chunk))
        return self._offered

    def prefilled(self, tokens: int, seconds: float) -> None:
        """Learn from a prefill run."""
        self._spent_s += seconds
        new = seconds / tokens
        # In a run much shorter than offered the fixed cost weighs more.
        is_short = tokens < self._offered // 2
        if not is_short or not self._token_s or new < median(self._token_s):
            self._token_s.append(new)

    def decoded(self, width: int, seconds: float) -> None:
        """Learn from a decode step of ``width`` sequences."""
        # Right after prefill a step finds cold caches: what it takes is not the usual gap.
        if self._spent_s > 0:
            self._step_after_prefill_s[width].append(seconds)
        if self._spent_s == 0 or not self._step_s[width] or seconds < self._usual_s(width):
            self._step_s[width].append(seconds)

    def _gap_s(self, width: int) -> float:
        """Seconds of prefill that one gap has room for."""
        if width == 0:
            return _IDLE_GAP_S
        if not self._step_s:
            return 0.0
        nearest = min(self._step_s, key=lambda known: abs(known - width))
        usual = self._usual_s(nearest)
        after_prefill = median(self._step_after_prefill_s[nearest] or [usual])
        return max(0.0, usual * self._itl_ratio - max(usual, after_prefill))

    def _usual_s(self, width: int) -> float:
        return median(self._step_s[width])
