"""Collecting one Python call, up to its closing parenthesis, as its text arrives."""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from gateway.chat.parsing.base import HELD_LIMIT
from gateway.chat.parsing.pyliteral import read_call

_NAME_LIMIT: Final = 256
_SCAN: Final = re.compile(r"""["'()\[\]{}]""")
_STOP: Final = {'"': re.compile(r'["\\]'), "'": re.compile(r"['\\]")}


class ReadError(Exception):
    """The text is not such a call; it was read as far as ``pos``."""

    def __init__(self, pos: int) -> None:
        super().__init__(pos)
        self.pos = pos


class _Mode(Enum):
    NAME = auto()
    SPACE = auto()  # between name and parenthesis
    CODE = auto()
    QUOTE_1 = auto()  # behind the first opening quote
    QUOTE_2 = auto()  # behind the second: an empty string, or half of three quotes
    STRING = auto()
    TRIPLE = auto()
    TRIPLE_1 = auto()  # behind the first closing quote
    TRIPLE_2 = auto()


# What a quote, and what another character, makes of a mode that waits for one.
_ON_QUOTE: Final = {
    _Mode.QUOTE_1: (_Mode.QUOTE_2, _Mode.STRING),
    _Mode.QUOTE_2: (_Mode.TRIPLE, _Mode.CODE),
    _Mode.TRIPLE_1: (_Mode.TRIPLE_2, _Mode.TRIPLE),
    _Mode.TRIPLE_2: (_Mode.CODE, _Mode.TRIPLE),
}


class CallReader:
    """Collects the text of a call up to its closing parenthesis, then reads it."""

    __slots__ = ("_depth", "_escaped", "_mode", "_parts", "_quote", "_size")

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = 0
        self._mode = _Mode.NAME
        self._depth = 0
        self._quote = '"'
        self._escaped = False

    @property
    def text(self) -> str:
        """What was read."""
        return "".join(self._parts)

    def read(self, text: str, pos: int) -> tuple[int, tuple[str, str] | None]:
        """Read on from ``pos``: how far, and name and JSON arguments once complete.

        Raises ReadError.
        """
        stop = min(len(text), pos + HELD_LIMIT - self._size)
        end, done, good = self._scan(text, pos, stop)
        self._parts.append(text[pos:end])
        self._size += end - pos
        if not good or (not done and self._size >= HELD_LIMIT):
            raise ReadError(end)
        if not done:
            return end, None
        call = read_call(self.text)
        if call is None:
            raise ReadError(end)
        return end, call

    def _scan(self, text: str, pos: int, stop: int) -> tuple[int, bool, bool]:
        """How far, whether the call ends there, and whether it may still be one."""
        start = pos
        while pos < stop:
            mode = self._mode
            if mode is _Mode.NAME or mode is _Mode.SPACE:
                char = text[pos]
                if char == "(":
                    self._mode, self._depth = _Mode.CODE, 1
                elif char in " \t":
                    self._mode = _Mode.SPACE
                elif mode is _Mode.SPACE or not (char == "." or char == "_" or char.isalnum()):
                    return pos, False, False
                pos += 1
                if self._size + pos - start > _NAME_LIMIT and self._mode is not _Mode.CODE:
                    return pos, False, False
            elif self._escaped:
                self._escaped = False
                pos += 1
            elif mode in _ON_QUOTE:
                on_quote, otherwise = _ON_QUOTE[mode]
                is_quote = text[pos] == self._quote
                self._mode = on_quote if is_quote else otherwise
                pos += is_quote
            else:
                pattern = _SCAN if mode is _Mode.CODE else _STOP[self._quote]
                match = pattern.search(text, pos, stop)
                if match is None:
                    return stop, False, True
                pos = match.end()
                if self._take(match.group()):
                    return pos, True, True
        return stop, False, True

    def _take(self, char: str) -> bool:
        """Take in a character that means something; whether the call ends with it."""
        if char == "\\":
            self._escaped = True
        elif char not in "\"'":
            self._depth += 1 if char in "([{" else -1
        elif self._mode is _Mode.CODE:
            self._quote, self._mode = char, _Mode.QUOTE_1
        else:
            self._mode = _Mode.CODE if self._mode is _Mode.STRING else _Mode.TRIPLE_1
        return not self._depth
