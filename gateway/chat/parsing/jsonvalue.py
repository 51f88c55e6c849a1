"""Finding where a JSON value ends, as its text arrives."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

_STRING_STOP: Final = re.compile(r'["\\]')
_NEXT_BRACKET: Final = re.compile(r'["{}\[\]]')
_SCALAR_STOP: Final = re.compile(r"[\s,\]}]")


class JsonValue:
    """Finds the end of one JSON value by its quotes and brackets.

    It does not check the value: a model that writes bad JSON gets it passed on.
    """

    __slots__ = ("_depth", "_escaped", "_in_string", "_scalar")

    def __init__(self, first: str) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._scalar = first not in '"{['

    def scan(self, text: str, pos: int, stop: int) -> tuple[int, bool]:
        """Read ``text[pos:stop]``: how far, and whether the value ends there."""
        if self._scalar:
            after = _SCALAR_STOP.search(text, pos, stop)
            return (after.start(), True) if after else (stop, False)
        while pos < stop:
            if self._escaped:
                self._escaped = False
                pos += 1
                continue
            match = (_STRING_STOP if self._in_string else _NEXT_BRACKET).search(text, pos, stop)
            if match is None:
                break
            pos = match.end()
            char = match.group()
            if char == "\\":
                self._escaped = True
            elif char == '"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if char in "{[" else -1
            if not (self._in_string or self._depth > 0):
                return pos, True
        return stop, False


class Status(Enum):
    """How reading stands."""

    MORE = auto()  # all text was read, more is needed
    DONE = auto()
    FAILED = auto()  # it is not, or no longer, what it should be; ``held`` is to be content
    _TURN = auto()  # stopped only because the bookkeeping of held text changes
