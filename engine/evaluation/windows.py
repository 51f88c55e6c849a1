"""Where a text longer than a model's context is cut, so that every token is scored once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens ``begin`` to ``end``, of which those from ``first`` on are scored."""

    begin: int
    end: int
    first: int

    @property
    def scored(self) -> int:
        """How many tokens are scored."""
        return self.end - self.first


def windows(count: int, context: int, stride: int) -> Iterator[Window]:
    """Sliding windows over ``count`` tokens.

    Each window has at most ``context`` tokens and starts ``stride`` after the one before, so a
    scored token has at least ``context - stride`` tokens before it, or all there are. The very
    first token has nothing before it and is not scored.

    Raises ValueError unless ``1 <= stride < context``.
    """
    if not 1 <= stride < context:
        raise ValueError(f"the stride ({stride}) must be from 1 to {context - 1}")
    done = 1
    for begin in range(0, count, stride):
        end = min(begin + context, count)
        if end > done:
            yield Window(begin, end, done)
            done = end
        if end == count:
            return
