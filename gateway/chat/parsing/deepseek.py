"""DeepSeek's tool calls, V3/R1 and V3.1.

Source: the chat templates of deepseek-ai/DeepSeek-V3-0324 and DeepSeek-V3.1::

    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather
    ```json
    {"city": "Oslo"}
    ```<｜tool▁call▁end｜><｜tool▁calls▁end｜>

V3.1 writes ``<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Oslo"}<｜tool▁call▁end｜>``.
The two are told apart by what follows the separator.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from gateway.chat.parsing.base import CallCounter, Event, ToolCallArguments
from gateway.chat.parsing.jsonvalue import JsonValue
from gateway.chat.parsing.markers import GAP_LIMIT, MarkerFinder, MarkerParser, opens, skip_space

ALL_OPEN: Final = "<｜tool▁calls▁begin｜>"
ALL_CLOSE: Final = "<｜tool▁calls▁end｜>"
CALL_OPEN: Final = "<｜tool▁call▁begin｜>"
CALL_CLOSE: Final = "<｜tool▁call▁end｜>"
SEPARATOR: Final = "<｜tool▁sep｜>"
FENCE: Final = "```"
_FINDER: Final = MarkerFinder(ALL_OPEN, CALL_OPEN)
_BETWEEN: Final = (FENCE, CALL_CLOSE, CALL_OPEN, ALL_CLOSE)
# Everything up to the arguments. V3 writes a type, the separator and the name on a line of
# its own; V3.1 the name and the separator.
_HEAD: Final = re.compile(
    rf"\s*([\w.:/-]+)\s*{SEPARATOR}\s*(?:([\w.:/-]+)\s*```(?:json)?\s*)?(?={{)"
)
_HEAD_LIMIT: Final = 1024


class _State(Enum):
    HEAD = auto()
    ARGUMENTS = auto()
    BETWEEN = auto()


class DeepSeekParser(MarkerParser):
    """Calls between markers; the outer pair and the closing ones are not required."""

    def __init__(self, calls: CallCounter) -> None:
        super().__init__(_FINDER, calls=calls)
        self._state = _State.BETWEEN
        self._scanner = JsonValue("{")
        self._index = 0

    def _begin(self, marker: str) -> None:
        self._state = _State.HEAD if marker == CALL_OPEN else _State.BETWEEN

    def _held(self) -> str:
        return ""

    def _read(self, text: str, pos: int, final: bool, out: list[Event]) -> int:
        while self._reading():
            before, state = pos, self._state
            if state is _State.HEAD:
                pos = self._read_head(text, pos, out)
            elif state is _State.BETWEEN:
                pos = self._read_between(text, pos, final, out)
            else:
                pos, done = self._scanner.scan(text, pos, len(text))
                if pos > before:
                    out.append(ToolCallArguments(self._index, text[before:pos]))
                if done:
                    self._state = _State.BETWEEN
            if pos == before and self._state is state:
                break
        return pos

    def _read_head(self, text: str, pos: int, out: list[Event]) -> int:
        brace = text.find("{", pos, pos + _HEAD_LIMIT)
        if brace < 0 and len(text) - pos < _HEAD_LIMIT:
            return pos
        match = _HEAD.match(text, pos, brace + 1) if brace >= 0 else None
        if match is None:
            self._give_up(out, "")
            return pos
        self._index = self._calls.start(out, match.group(2) or match.group(1))
        self._scanner = JsonValue("{")
        self._state = _State.ARGUMENTS
        return brace

    def _read_between(self, text: str, pos: int, final: bool, out: list[Event]) -> int:
        """Skip what closes a call, up to the next one or the end of them all."""
        called = self._calls.count > self._calls_before
        start = skip_space(text, pos)
        found = {m: opens(text, start, m) for m in (_BETWEEN if called else (CALL_OPEN,))}
        if start - pos > GAP_LIMIT or not (True in found.values() or None in found.values()):
            self._give_up(out, "")
        elif found[CALL_OPEN]:
            self._opening = ("" if called else self._opening) + text[pos:start] + CALL_OPEN
            self._calls_before = self._calls.count
            self._state = _State.HEAD
            pos = start + len(CALL_OPEN)
        elif found.get(ALL_CLOSE):
            self._close()
            pos = start + len(ALL_CLOSE)
        elif True in found.values():
            pos = start + len(CALL_CLOSE if found.get(CALL_CLOSE) else FENCE)
        elif final and called:
            self._close()
            pos = len(text)
        return pos
