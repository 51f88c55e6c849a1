"""One sequence's position in a grammar, and masks applied to the logits of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

Bits = npt.NDArray[np.int32]
Logits = npt.NDArray[np.float32]

_FORBIDDEN = np.float32(-np.inf)
# Below this share of the vocabulary it is cheaper to go by token ids than by a row of bits.
_FEW = 0.25


class Constraint:
    """What a sequence may emit next. Belongs to one sequence and one thread at a time.

    Attributes:
        fault: why the grammar cannot go on, or None. A faulty constraint allows nothing.
    """

    __slots__ = ("_bits", "_fresh", "_matcher", "fault")

    def __init__(self, matcher: LLMatcher, vocab_size: int) -> None:
        """Take over ``matcher``, which nobody else may use."""
        self._matcher = matcher
        self._bits: Bits = np.zeros((vocab_size + 31) // 32, np.int32)
        self._fresh = False
        self.fault: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the grammar is complete, so that only end-of-sequence may follow."""
        return self.fault is None and self._matcher.is_stopped()

    @property
    def accepting(self) -> bool:
        """Whether the output may end here."""
        return self.fault is None and self._matcher.is_accepting()

    def allowed_mask(self) -> Bits:
        """Packed bits [ceil(vocab / 32)]: bit ``i % 32`` of word ``i // 32`` allows token ``i``.

        The array is overwritten by the next call after ``accept``. The GIL is released
        while it is computed.
        """
        if not self._fresh and self.fault is None:
            bits = self._bits
            self._matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
            # On an error llguidance allows end-of-sequence, which would pass for success.
            self._note_error()
            self._fresh = True
        return self._bits

    def accept(self, token_id: int) -> None:
        """Advance by a token; one that the grammar does not allow is a fault."""
        self._fresh = False
        if self.fault is None and not self._matcher.consume_token(token_id):
            self._note_error()

    def accept_all(self, token_ids: Iterable[int]) -> bool:
        """Advance by output made earlier; False when the grammar does not allow it."""
        for token_id in token_ids:
            self.accept(token_id)
            if self.fault is not None:
                return False
        return True

    def _note_error(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().partition("\n")[0][:200]
            self.fault = f"the output cannot be constrained any further: {reason}"
            self._bits.fill(0)


def mask_logits(logits: Logits, rows: Sequence[int], constraints: Sequence[Constraint]) -> None:
    """Set forbidden tokens of ``logits[rows[i]]`` [rows, vocab] to -inf, in place."""
    for row, constraint in zip(rows, constraints, strict=True):
        keep_allowed(logits[row], constraint.allowed_mask())


def keep_allowed(row: Logits, mask: Bits) -> None:
    """Set what ``mask`` forbids, and what is beyond its end, to -inf in ``row`` [vocab]."""
    covered = mask.size * 32
    if covered < row.size:
        row[covered:] = _FORBIDDEN
        row = row[:covered]
    allowed = int(np.bitwise_count(mask).sum())
    if allowed < _FEW * row.size:
        ids = _within(allowed_ids(mask), row.size)
        kept = row[ids]
        row.fill(_FORBIDDEN)
        row[ids] = kept
    elif allowed > (1 - _FEW) * row.size:
        row[_within(allowed_ids(~mask), row.size)] = _FORBIDDEN
    else:
        bits = np.unpackbits((~mask).view(np.uint8), count=row.size, bitorder="little")
        np.putmask(row, bits.view(np.bool_), _FORBIDDEN)


def allowed_ids(mask: Bits) -> npt.NDArray[np.int64]:
    """Ids of the tokens that ``mask`` allows, ascending."""
    words = np.flatnonzero(mask)
    bits = np.unpackbits(mask[words].view(np.uint8), bitorder="little")
    at = np.flatnonzero(bits.view(np.bool_))
    ids: npt.NDArray[np.int64] = words[at >> 5] * 32 + (at & 31)
    return ids


def _within(ids: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    return ids[: int(np.searchsorted(ids, size))]
