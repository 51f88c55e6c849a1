"""Mistral's tool calls.

Source: mistral-common's tokenizers. Before version 11 one JSON list follows the marker; from
then on each call has a marker, its name and its arguments; ``[CALL_ID]`` came with version 13
in some models::

    [TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Oslo"}}]
    [TOOL_CALLS]get_weather{"city": "Oslo"}
    [TOOL_CALLS]get_weather[CALL_ID]a1b2c3d4e[ARGS]{"city": "Oslo"}
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from gateway.chat.parsing.base import CallCounter, Event, ToolCallArguments
from gateway.chat.parsing.jsonlist import CallList
from gateway.chat.parsing.jsonvalue import JsonValue, Status
from gateway.chat.parsing.markers import GAP_LIMIT, MarkerFinder, MarkerParser, opens, skip_space

OPEN: Final = "[TOOL_CALLS]"
ARGS: Final = "[ARGS]"
CALL_ID: Final = "[CALL_ID]"
_FINDER: Final = MarkerFinder(OPEN)
_NAME: Final = re.compile(r"\s{0,64}([\w.:/-]{0,256})\s{0,64}")
_CALL_ID_BODY: Final = re.compile(r"\s{0,64}\w{0,64}\s{0,64}")


class _State(Enum):
    FIRST = auto()  # which of the two forms is it?
    LIST = auto()
    NAME = auto()
    ID = auto()
    VALUE = auto()  # right behind [ARGS]
    ARGUMENTS = auto()


class MistralParser(MarkerParser):
    """Both forms, told apart by what follows the marker."""

    def __init__(self, calls: CallCounter) -> None:
        super().__init__(_FINDER, calls=calls)
        self._state = _State.FIRST
        self._list: CallList | None = None
        self._consumed = ""
        self._name = ""
        self._index = 0
        self._scanner = JsonValue("{")

    def _begin(self, marker: str) -> None:
        self._state = _State.FIRST
        self._list = None
        self._consumed = ""

    def _held(self) -> str:
        return self._list.held if self._list else self._consumed

    def _read(self, text: str, pos: int, final: bool, out: list[Event]) -> int:
        while True:
            state = self._state
            if state is _State.ARGUMENTS:
                end, done = self._scanner.scan(text, pos, len(text))
                if end > pos:
                    out.append(ToolCallArguments(self._index, text[pos:end]))
                if done:
                    self._close()
                return end
            if state is _State.LIST and self._list is not None:
                pos, status = self._list.read(text, pos, out)
                if status is Status.DONE:
                    self._close()
                elif status is Status.FAILED:
                    self._give_up(out, self._list.held)
                return pos
            step = self._step(text, pos, out)
            if step is None:
                return pos
            if step < 0:
                self._give_up(out, self._consumed)
                return pos
            if self._state is not _State.ARGUMENTS:
                self._consumed += text[pos:step]
            pos = step

    def _step(self, text: str, pos: int, out: list[Event]) -> int | None:
        """Read up to the arguments or the list: the next position, None while the text is
        too short to tell, -1 when this is no call."""
        if self._state is _State.FIRST:
            start = skip_space(text, pos)
            if start - pos > GAP_LIMIT:
                return -1
            if start == len(text):
                return None
            repeated = opens(text, start, OPEN)
            if repeated is None:
                return None
            if repeated:
                return start + len(OPEN)
            if text[start] in "[{":
                self._list = CallList(self._calls)
                self._list.hold(self._consumed)
                self._state = _State.LIST
            else:
                self._state = _State.NAME
            return pos
        if self._state is _State.NAME:
            return self._step_name(text, pos, out)
        if self._state is _State.ID:
            match = _CALL_ID_BODY.match(text, pos)
            end = match.end() if match else pos
            if end == len(text):
                return None
            found = opens(text, end, ARGS)
            if found:
                self._state = _State.VALUE
                return end + len(ARGS)
            return None if found is None else -1
        start = skip_space(text, pos)
        if start - pos > GAP_LIMIT:
            return -1
        return None if start == len(text) else self._start(text, start, out)

    def _step_name(self, text: str, pos: int, out: list[Event]) -> int | None:
        match = _NAME.match(text, pos)
        end = match.end() if match else pos
        if end == len(text):
            return None
        self._name = match.group(1) if match else ""
        if not self._name:
            return -1
        if text[end] == "{":
            return self._start(text, end, out)
        for marker, state in ((ARGS, _State.VALUE), (CALL_ID, _State.ID)):
            found = opens(text, end, marker)
            if found:
                self._state = state
                return end + len(marker)
            if found is None:
                return None
        return -1

    def _start(self, text: str, pos: int, out: list[Event]) -> int:
        if text[pos] != "{":
            return -1
        self._index = self._calls.start(out, self._name)
        self._scanner = JsonValue("{")
        self._state = _State.ARGUMENTS
        return pos
