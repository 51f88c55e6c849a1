"""Masks of constrained sequences, computed while the model runs.

What a sequence may emit next is known as soon as its last token is, so the masks of a step
need not wait for its logits, and streams without a constraint do not wait for masks.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from engine.onnx.sequence import Sequence, TokenConstraint


class MaskAhead:
    """A thread that computes masks; it exists once there is something to compute."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def computed_beside(self, batch: list[Sequence]) -> Iterator[None]:
        """Compute the next mask of every constrained sequence during the block."""
        constraints = [s.constraint for s in batch if s.constraint is not None]
        if not constraints:
            yield
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="masks")
        work = self._pool.submit(_compute, constraints)
        try:
            yield
        finally:
            work.result()

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown()


def _compute(constraints: list[TokenConstraint]) -> None:
    for constraint in constraints:
        constraint.allowed_mask()
