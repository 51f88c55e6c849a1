"""A prefix cache without KV: only what would be found."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

_BLOCK = 16


class Prefixes:
    """Remembers prompts by blocks, least recently used ones forgotten first.

    Args:
        tokens: how much to remember; 0 remembers nothing.
    """

    def __init__(self, tokens: int) -> None:
        self._capacity = tokens // _BLOCK
        self._known: OrderedDict[int, None] = OrderedDict()
        self.queries = 0
        """Prompt tokens looked up since start."""
        self.hits = 0
        """Of these, tokens that were found."""

    def look_up_and_keep(self, prompt: Sequence[int], salt: str | None) -> int:
        """Tokens of the longest known prefix; the last token never counts."""
        if self._capacity == 0:
            return 0
        keys = []
        parent = hash(salt)
        for start in range(0, (len(prompt) - 1) // _BLOCK * _BLOCK, _BLOCK):
            parent = hash((parent, tuple(prompt[start : start + _BLOCK])))
            keys.append(parent)
        found = next((i for i, key in enumerate(keys) if key not in self._known), len(keys))
        for key in keys:
            self._known[key] = None
            self._known.move_to_end(key)
        while len(self._known) > self._capacity:
            self._known.popitem(last=False)
        self.queries += len(keys) * _BLOCK
        self.hits += found * _BLOCK
        return found * _BLOCK
