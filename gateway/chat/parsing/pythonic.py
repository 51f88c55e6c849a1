"""Tool calls written as a list of Python calls.

Sources: Meta's Llama 3.2 and Llama 4 prompt formats (Llama 4 puts the list between
``<|python_start|>`` and ``<|python_end|>``), ToolACE's model card, and Liquid AI's LFM2 chat
template (``<|tool_call_start|>[...]<|tool_call_end|>``)::

    [get_weather(city="Oslo", days=3), get_time(zone='UTC')]

Nothing is evaluated: arguments are keyword arguments with literal values, read by
``pyliteral``. A call is emitted when its closing parenthesis has arrived, because only then
is it certain that it is one, and because a Python literal has no JSON prefix to stream.
"""

from __future__ import annotations

from typing import Final

from gateway.chat.parsing.base import CallCounter, Event, ToolCallArguments
from gateway.chat.parsing.markers import GAP_LIMIT, MarkerFinder, MarkerParser
from gateway.chat.parsing.pycall import CallReader, ReadError

_NONE: Final = MarkerFinder()


class PythonicParser(MarkerParser):
    """Without a marker the list must be the first thing in the output."""

    def __init__(self, calls: CallCounter, marker: str = "", closer: str = "") -> None:
        late = MarkerFinder(marker) if marker else _NONE
        super().__init__(MarkerFinder(*filter(None, (marker, "["))), late, calls=calls)
        self._closer = (closer,) if closer else ()
        self._reader: CallReader | None = None
        self._consumed: list[str] = []
        self._listed = False  # the opening bracket was read
        self._open = True  # the list is not closed yet
        self._due = True  # the next thing is a call

    def _begin(self, marker: str) -> None:
        self._consumed.clear()
        self._reader = None
        self._listed = marker == "["
        self._open = self._due = True

    def _held(self) -> str:
        return "".join(self._consumed) + (self._reader.text if self._reader else "")

    def _read(self, text: str, pos: int, final: bool, out: list[Event]) -> int:
        while self._open:
            if self._reader is not None:
                try:
                    pos, call = self._reader.read(text, pos)
                except ReadError as error:
                    return self._fail(error.pos, out)
                if call is None:
                    return pos
                index = self._calls.start(out, call[0])
                out.append(ToolCallArguments(index, call[1]))
                self._reader = None
                self._consumed.clear()
                self._due = False
                continue
            if pos == len(text):
                return pos
            char = text[pos]
            if char.isspace() and len(self._consumed) < GAP_LIMIT:
                pass
            elif not self._listed:
                if char != "[":
                    return self._fail(pos, out)
                self._listed = True
            elif self._due and (char.isalpha() or char == "_"):
                self._reader = CallReader()
                continue
            elif char == "," and not self._due:
                self._due = True
            elif char == "]" and self._calls.count > self._calls_before:
                self._open = False
                pos += 1
                break
            else:
                return self._fail(pos, out)
            self._consumed.append(char)
            pos += 1
        return self._read_close(text, pos, final, *self._closer)

    def _fail(self, pos: int, out: list[Event]) -> int:
        self._give_up(out, self._held())
        return pos
