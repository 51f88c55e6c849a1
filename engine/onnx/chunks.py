"""Where a prompt may be cut into chunks without a change of its logits' last bits."""

from __future__ import annotations

import os

_SC_LEVEL2_CACHE_SIZE = 191
"""glibc's number; Python has no name for it."""


def attention_rows(head_dim: int) -> int:
    """Positions of a chunk that onnxruntime's attention takes at a time.

    Its GroupQueryAttention sizes them by the L2 cache, which it asks of the same place. Where
    the size is not known it takes a whole chunk at once, and any answer will do.
    """
    rows = 2 * head_dim
    try:
        l2_bytes = os.sysconf(_SC_LEVEL2_CACHE_SIZE)
    except (OSError, ValueError):
        return rows
    fitting = l2_bytes // (4 * 4 * rows)  # four tiles of float32, as mlas divides the cache
    return min(rows, fitting) if fitting > 0 else rows


def chunk_length(left: int, most: int, rows: int) -> int:
    """Tokens of the next prefill chunk, of ``left`` that remain; about ``most``.

    Attention over one new token rounds otherwise than over several, and logits must not depend
    on where chunks end. So a token is never by itself beside others: not as a chunk, not as
    the rest, and not as the last of the ``rows`` that attention takes at a time.
    """
    if left <= 3:
        return left
    count = min(left, max(2, most))
    while count % rows == 1 or left - count == 1:
        count -= 1
    return count
