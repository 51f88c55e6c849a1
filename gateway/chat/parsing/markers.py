"""Finding markers in text that arrives in pieces."""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from typing import Final

from gateway.chat.parsing.base import CallCounter, ContentDelta, Event

GAP_LIMIT: Final = 256
"""Longest run of white space around calls that may count as the template's framing."""


class MarkerFinder:
    """Finds the first of some markers, or where one may be about to appear.

    No marker may contain the first character of any marker beyond its own first place:
    then two markers cannot overlap, and the first one to be complete is the leftmost.
    """

    __slots__ = ("_firsts", "_longest", "_markers", "may_hold", "search")

    def __init__(self, *markers: str) -> None:
        self._markers = markers
        self._firsts = frozenset(marker[0] for marker in markers)
        self._longest = max((len(marker) for marker in markers), default=1)
        # A character class that nothing matches stands for no markers at all.
        firsts = "".join(map(re.escape, sorted(self._firsts)))
        self.may_hold = re.compile(f"[{firsts}]" if firsts else r"(?!)").search
        self.search = re.compile("|".join(map(re.escape, markers)) or r"(?!)").search

    def tail(self, text: str, pos: int = 0) -> int:
        """Where the beginning of a marker at the end of ``text`` starts, else its length."""
        for start in range(max(pos, len(text) - self._longest + 1), len(text)):
            if text[start] in self._firsts and any(
                marker.startswith(text[start:]) for marker in self._markers
            ):
                return start
        return len(text)


def opens(text: str, pos: int, marker: str) -> bool | None:
    """Whether ``marker`` stands at ``pos``; None while the text is too short to tell."""
    if text.startswith(marker, pos):
        return True
    return None if marker.startswith(text[pos:]) else False


_SPACE: Final = re.compile(r"\s*")


def skip_space(text: str, pos: int, stop: int = sys.maxsize) -> int:
    """The first position from ``pos`` on that is not white space, or is ``stop``."""
    match = _SPACE.match(text, pos, stop)
    return match.end() if match else pos


class MarkerParser(ABC):
    """Content until a marker, then a call that the subclass reads, then content again.

    White space between the start of the output, its calls and its end is the template's
    framing, and is dropped; white space beside other text is content.
    """

    thinking = False
    done = False

    def __init__(
        self, early: MarkerFinder, late: MarkerFinder | None = None, *, calls: CallCounter
    ) -> None:
        """``early`` finds what may open a call before any text, ``late`` after some."""
        self._calls = calls
        self._finder = early
        self._late = late or early
        self._rest = ""  # unread text, kept for the next feed
        self._opening = ""  # text to give back should the open call turn out not to be one
        self._calls_before = 0
        self._gap = True  # nothing but white space since the start or the last call
        self._inside = False

    @abstractmethod
    def _begin(self, marker: str) -> None:
        """A marker was read: get ready to read the call behind it."""

    @abstractmethod
    def _read(self, text: str, pos: int, final: bool, out: list[Event]) -> int:
        """Read the call from ``pos`` on and return how far it was read.

        Ends with ``_close`` or ``_give_up`` when the call is over; otherwise more text is
        needed, and what lies beyond the returned position is seen again with it. With
        ``final`` there is no more text.
        """

    @abstractmethod
    def _held(self) -> str:
        """What was read of the open call but has not become an event."""

    def _close(self) -> None:
        """The call is over."""
        self._opening = ""
        self._gap = True
        self._inside = False
        self._finder = self._late

    def _give_up(self, out: list[Event], held: str) -> None:
        """This is no call, or no more of one: what was read and not emitted is content."""
        text = held if self._calls.count > self._calls_before else self._opening + held
        self._close()
        if text:
            self._gap = False
            out.append(ContentDelta(text))

    def _read_close(self, text: str, pos: int, final: bool, *markers: str) -> int:
        """Read an optional closing marker behind a complete call."""
        start = skip_space(text, pos)
        if start - pos <= GAP_LIMIT:
            found = [opens(text, start, marker) for marker in markers]
            if True in found:
                pos = start + len(markers[found.index(True)])
            elif None in found:
                if not final:
                    return pos
                pos = len(text)
        self._close()
        return pos

    def feed(self, text: str) -> list[Event]:
        if not (self._gap or self._inside or self._rest or self._finder.may_hold(text)) and (
            self._finder is self._late
        ):
            return [ContentDelta(text)] if text else []
        return self._run(self._rest + text, False)

    def finish(self) -> list[Event]:
        return self._run(self._rest, True)

    def _reading(self) -> bool:
        return self._inside

    def _run(self, text: str, final: bool) -> list[Event]:
        out: list[Event] = []
        pos = 0
        while True:
            if self._reading():
                pos = self._read(text, pos, final, out)
                if not self._reading():
                    continue
                if final:
                    self._give_up(out, self._held() + text[pos:])
                break
            hit = self._finder.search(text, pos)
            if self._finder is not self._late:
                start = skip_space(text, pos)
                if start < (hit.start() if hit else self._finder.tail(text, pos)):
                    self._finder = self._late
                    continue
            stop = hit.start() if hit else len(text) if final else self._finder.tail(text, pos)
            plain = text[pos:stop]
            framing = self._gap and len(plain) <= GAP_LIMIT and not plain.strip()
            if framing and hit is None:
                if final and plain and not self._calls.count:
                    out.append(ContentDelta(plain))
                break
            if plain and not framing:
                self._gap = False
                out.append(ContentDelta(plain))
            pos = stop
            if hit is None:
                break
            pos = hit.end()
            self._opening = (plain if framing else "") + hit.group()
            self._calls_before = self._calls.count
            self._inside = True
            self._begin(hit.group())
        self._rest = "" if final else text[pos:]
        return out
