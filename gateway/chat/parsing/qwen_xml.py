"""Qwen3-Coder's tool calls.

Source: the chat template of Qwen/Qwen3-Coder-30B-A3B-Instruct and vLLM's ``qwen3_coder``::

    <tool_call>
    <function=get_weather>
    <parameter=city>
    Oslo
    </parameter>
    </function>
    </tool_call>

Values are bare text: the schema of the tool says which are strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from gateway.chat.parsing.base import (
    HELD_LIMIT,
    CallCounter,
    ContentDelta,
    Event,
    ToolCallArguments,
    ToolSchemas,
)
from gateway.chat.parsing.coerce import schema_types, to_json
from gateway.chat.parsing.markers import GAP_LIMIT, MarkerFinder, MarkerParser, opens, skip_space

OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"
FUNCTION: Final = "<function="
FUNCTION_CLOSE: Final = "</function>"
PARAMETER: Final = "<parameter="
PARAMETER_CLOSE: Final = "</parameter>"
_OPENERS: Final = MarkerFinder(OPEN, FUNCTION)
_TAGS: Final = MarkerFinder(PARAMETER_CLOSE, PARAMETER, FUNCTION_CLOSE, CLOSE)
_NAME: Final = re.compile(r"[^<>\n]{0,256}")
_STRING: Final = frozenset(("string",))


class _State(Enum):
    PREAMBLE = auto()
    NAME = auto()
    BETWEEN = auto()
    KEY = auto()
    VALUE = auto()
    CLOSE = auto()


class QwenXmlParser(MarkerParser):
    """String values are streamed as they arrive, escaped; others once they are complete.

    As in vLLM a value ends at its closing tag, or where that is missing at the next tag of
    the format; the newline behind the opening and before the closing tag is not part of it.
    Where the output stops inside a value the arguments stay unfinished JSON.
    """

    def __init__(self, calls: CallCounter, tools: ToolSchemas) -> None:
        super().__init__(_OPENERS, calls=calls)
        self._tools = tools
        self._state = _State.PREAMBLE
        self._properties: Mapping[str, object] = {}
        self._index = 0
        self._first = True
        self._stray = False  # text that is no tag stands between two tags
        self._types = _STRING
        self._value: list[str] | None = None  # a value being collected; None: streamed
        self._size = 0
        self._newline = False  # the newline that opens the value may still come

    def _begin(self, marker: str) -> None:
        self._state = _State.PREAMBLE if marker == OPEN else _State.NAME

    def _held(self) -> str:
        return ""

    def _read(self, text: str, pos: int, final: bool, out: list[Event]) -> int:
        while self._reading():
            before, state = pos, self._state
            if state is _State.PREAMBLE:
                pos = self._read_preamble(text, pos, out)
            elif state is _State.NAME:
                pos = self._read_name(text, pos, out)
            elif state is _State.BETWEEN:
                pos = self._read_between(text, pos, final, out)
            elif state is _State.KEY:
                pos = self._read_key(text, pos, out)
            elif state is _State.VALUE:
                pos = self._read_value(text, pos, final, out)
            else:
                return self._read_close(text, pos, final, CLOSE)
            if pos == before and self._state is state:
                break
        return pos

    def _read_preamble(self, text: str, pos: int, out: list[Event]) -> int:
        start = skip_space(text, pos)
        found = opens(text, start, FUNCTION)
        if found is False or start - pos > GAP_LIMIT:
            self._give_up(out, "")
        elif found:
            self._opening += text[pos:start] + FUNCTION
            self._state = _State.NAME
            return start + len(FUNCTION)
        return pos

    def _read_name(self, text: str, pos: int, out: list[Event]) -> int:
        match = _NAME.match(text, pos)
        end = match.end() if match else pos
        name = text[pos:end].strip()
        if end == len(text):
            return pos
        if text[end] != ">" or not name:
            self._give_up(out, "")
            return pos
        properties = self._tools.get(name, {}).get("properties")
        self._properties = properties if isinstance(properties, Mapping) else {}
        self._index = self._calls.start(out, name)
        self._first = True
        self._stray = False
        self._state = _State.BETWEEN
        return end + 1

    def _read_between(self, text: str, pos: int, final: bool, out: list[Event]) -> int:
        hit = _TAGS.search(text, pos)
        stop = hit.start() if hit else len(text) if final else _TAGS.tail(text, pos)
        if not self._stray:
            pos = min(skip_space(text, pos), stop)
        if pos < stop:
            self._stray = True
            out.append(ContentDelta(text[pos:stop]))
        if hit is None:
            if final:
                self._end_arguments(out)
                self._close()
            return stop
        self._stray = False
        if hit.group() == PARAMETER:
            self._state = _State.KEY
        elif hit.group() != PARAMETER_CLOSE:
            self._end_arguments(out)
            self._state = _State.CLOSE
            if hit.group() == CLOSE:
                self._close()
        return hit.end()

    def _end_arguments(self, out: list[Event]) -> None:
        out.append(ToolCallArguments(self._index, "{}" if self._first else "}"))

    def _read_key(self, text: str, pos: int, out: list[Event]) -> int:
        match = _NAME.match(text, pos)
        end = match.end() if match else pos
        if end == len(text):
            return pos
        if text[end] != ">":
            out.append(ContentDelta(PARAMETER))
            self._stray = True
            self._state = _State.BETWEEN
            return pos
        key = text[pos:end]
        self._types = schema_types(self._properties.get(key))
        quote = '"' if self._types == _STRING else ""
        lead = ("{" if self._first else ", ") + json.dumps(key, ensure_ascii=False) + ": " + quote
        out.append(ToolCallArguments(self._index, lead))
        self._first = False
        self._value = None if quote else []
        self._size = 0
        self._newline = True
        self._state = _State.VALUE
        return end + 1

    def _read_value(self, text: str, pos: int, final: bool, out: list[Event]) -> int:
        if self._newline and pos < len(text):
            self._newline = False
            pos += text[pos] == "\n"
        hit = _TAGS.search(text, pos)
        stop = hit.start() if hit else _TAGS.tail(text, pos)
        if stop > pos and text[stop - 1] == "\n" and (hit or not final):
            self._emit_value(text[pos : stop - 1], out)
            # Whether this newline is part of the value is known from what follows it.
            if hit is None:
                return stop - 1
        else:
            self._emit_value(text[pos:stop], out)
        if hit is None:
            if final:
                self._close()
                return len(text)
            return stop
        if self._value is None:
            out.append(ToolCallArguments(self._index, '"'))
        else:
            value = to_json("".join(self._value), self._types)
            out.append(ToolCallArguments(self._index, value))
        self._state = _State.BETWEEN
        return hit.end() if hit.group() == PARAMETER_CLOSE else hit.start()

    def _emit_value(self, text: str, out: list[Event]) -> None:
        if self._value is not None:
            self._value.append(text)
            self._size += len(text)
            if self._size <= HELD_LIMIT:
                return
            # Too long to be collected: it is passed on as a string after all.
            out.append(ToolCallArguments(self._index, '"'))
            text = "".join(self._value)
            self._value = None
        if text:
            escaped = json.dumps(text, ensure_ascii=False)[1:-1]
            out.append(ToolCallArguments(self._index, escaped))
