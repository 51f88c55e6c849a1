"""Tool calls as one JSON list behind a marker: Phi-4-mini and Granite 3.

Sources: Microsoft's Phi-4-mini-instruct model card (``<|tool_call|>[...]<|/tool_call|>``) and
vLLM's template for it (``functools[...]``); the chat templates of IBM's Granite 3.0 to 3.3
(``<|tool_call|>[...]``; 3.1 writes ``<tool_call>[...]`` as plain text)::

    <|tool_call|>[{"name": "get_weather", "arguments": {"city": "Oslo"}}]
"""

from __future__ import annotations

from typing import Final

from gateway.chat.parsing.base import CallCounter, Event
from gateway.chat.parsing.jsoncalls import CallObject
from gateway.chat.parsing.jsonvalue import Status
from gateway.chat.parsing.markers import GAP_LIMIT, MarkerFinder, MarkerParser, skip_space

PHI4_OPEN: Final = ("functools[", "<|tool_call|>")
GRANITE_OPEN: Final = ("<|tool_call|>", "<tool_call>")
_PHI4: Final = MarkerFinder(*PHI4_OPEN)
_GRANITE: Final = MarkerFinder(*GRANITE_OPEN)


class CallList:
    """``[{call}, {call}]``, or a single call without the brackets."""

    def __init__(self, calls: CallCounter) -> None:
        self._calls = calls
        self._call: CallObject | None = None
        self._held = ""
        self._listed = False
        self._first = True

    def hold(self, text: str) -> None:
        """Text in front of the list that is to be given back with it."""
        self._held += text

    @property
    def held(self) -> str:
        """Text that was read but has not become an event."""
        return self._held + (self._call.held if self._call else "")

    def read(self, text: str, pos: int, out: list[Event]) -> tuple[int, Status]:
        """Read on from ``pos``: how far, and how it stands."""
        while True:
            if self._call is not None:
                before = self._calls.count
                pos, status = self._call.read(text, pos, out)
                if self._calls.count > before:
                    self._held = ""
                if status is not Status.DONE:
                    return pos, status
                self._call = None
                self._held = ""
                if not self._listed:
                    return pos, Status.DONE
                continue
            start = pos
            pos = skip_space(text, pos, min(len(text), pos + 2 * GAP_LIMIT - len(self._held)))
            self._held += text[start:pos]
            if len(self._held) >= 2 * GAP_LIMIT:
                return pos, Status.FAILED
            if pos == len(text):
                return pos, Status.MORE
            char = text[pos]
            if char == "]" and self._listed and not self._first:
                return pos + 1, Status.DONE
            if char == "[" and not self._listed:
                self._listed = True
            elif char == "{" and self._first:
                self._open_call()
                continue
            elif char == "," and self._listed and not self._first:
                self._first = True
            else:
                return pos, Status.FAILED
            self._held += char
            pos += 1

    def _open_call(self) -> None:
        self._call = CallObject(self._calls)
        self._first = False


class JsonListParser(MarkerParser):
    """The end of the list is the end of the calls; a closing marker is optional."""

    def __init__(self, finder: MarkerFinder, closers: tuple[str, ...], calls: CallCounter) -> None:
        super().__init__(finder, calls=calls)
        self._closers = closers
        self._list: CallList | None = None

    def _begin(self, marker: str) -> None:
        self._list = CallList(self._calls)
        if marker.endswith("["):
            self._opening = self._opening[:-1]
            self._list.read("[", 0, [])

    def _held(self) -> str:
        return self._list.held if self._list else ""

    def _read(self, text: str, pos: int, final: bool, out: list[Event]) -> int:
        if self._list is not None:
            pos, status = self._list.read(text, pos, out)
            if status is Status.FAILED:
                self._give_up(out, self._list.held)
                return pos
            if status is Status.MORE:
                return pos
            self._list = None
        return self._read_close(text, pos, final, *self._closers)


def phi4_parser(calls: CallCounter) -> JsonListParser:
    """Phi-4-mini's format."""
    return JsonListParser(_PHI4, ("<|/tool_call|>",), calls)


def granite_parser(calls: CallCounter) -> JsonListParser:
    """Granite 3's format."""
    return JsonListParser(_GRANITE, ("</tool_call>",), calls)
