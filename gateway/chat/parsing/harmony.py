"""gpt-oss's channels: reasoning, answer and tool calls in one format.

Source: OpenAI's harmony response format (openai/harmony, docs/format.md)::

    <|channel|>analysis<|message|>Let me look.<|end|><|start|>assistant<|channel|>commentary
    to=functions.get_weather <|constrain|>json<|message|>{"city": "Oslo"}<|call|>
    <|start|>assistant<|channel|>final<|message|>It rains.<|return|>
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from gateway.chat.parsing.base import (
    CallCounter,
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolCallArguments,
)
from gateway.chat.parsing.jsonvalue import JsonValue
from gateway.chat.parsing.markers import MarkerFinder, skip_space

START: Final = "<|start|>"
CHANNEL: Final = "<|channel|>"
MESSAGE: Final = "<|message|>"
_ENDS: Final = ("<|end|>", "<|return|>", "<|call|>", START)
MARKERS: Final = (CHANNEL, MESSAGE, "<|constrain|>", *_ENDS)
_BODY_END: Final = MarkerFinder(*_ENDS)
_OUTSIDE: Final = MarkerFinder(CHANNEL, *_ENDS)
_HEAD_END: Final = MarkerFinder(MESSAGE, *_ENDS)
_HEAD_LIMIT: Final = 1024
_RECIPIENT: Final = re.compile(r"\bto=functions\.([\w.-]{1,256})")
_ANALYSIS: Final = re.compile(r"<\|channel\|>\s*analysis\b")


class _State(Enum):
    OUTSIDE = auto()
    HEAD = auto()
    BODY = auto()


class HarmonyParser:
    """Analysis is reasoning, messages to functions are calls, all else is content.

    Text outside a message is content too: the model did not keep to the format.
    """

    done = False

    def __init__(self, calls: CallCounter) -> None:
        self._calls = calls
        self._state = _State.OUTSIDE
        self._rest = ""
        self._head = ""
        self._index: int | None = None
        self._json: JsonValue | None = None  # the arguments being read
        self._reasoning = False
        self._empty = True  # nothing but white space in this message, or outside of one

    @property
    def thinking(self) -> bool:
        """Whether the open message is analysis."""
        return self._reasoning

    def feed(self, text: str) -> list[Event]:
        if self._state is _State.BODY and self._index is None and not (self._rest or "<" in text):
            return [self._delta(text)] if text else []
        return self._run(self._rest + text, False)

    def finish(self) -> list[Event]:
        return self._run(self._rest, True)

    def _delta(self, text: str) -> Event:
        self._empty = False
        if self._index is not None:
            return ToolCallArguments(self._index, text)
        return ReasoningDelta(text) if self._reasoning else ContentDelta(text)

    def _run(self, text: str, final: bool) -> list[Event]:
        out: list[Event] = []
        pos = 0
        while pos < len(text):
            if self._state is _State.HEAD:
                hit = _HEAD_END.search(text, pos, pos + _HEAD_LIMIT)
                if hit is None and len(text) - pos < _HEAD_LIMIT:
                    # A head that the output ends in is no text: it is dropped with it.
                    pos = len(text) if final else pos
                    break
                if hit and hit.group() == MESSAGE:
                    self._open(self._head + text[pos : hit.start()], out)
                    pos = hit.end()
                else:
                    self._leave()
                    out.append(self._delta(self._head))
                continue
            if self._json is not None:
                # A marker inside a JSON string is part of that string.
                end, done = self._json.scan(text, pos, len(text))
                out.append(self._delta(text[pos:end]))
                pos = end
                if done:
                    self._leave()
                continue
            body = self._state is _State.BODY
            finder = _BODY_END if body else _OUTSIDE
            hit = finder.search(text, pos)
            stop = hit.start() if hit else len(text) if final else finder.tail(text, pos)
            if self._empty and (not body or self._index is not None):
                pos = min(skip_space(text, pos), stop)
                if body and text[pos : pos + 1] == "{":
                    self._json = JsonValue("{")
                    continue
            if final and self._head and self._empty and not body and hit is None:
                break  # at most the beginning of a marker, which the output ends in
            if pos < stop:
                out.append(self._delta(text[pos:stop]))
            pos = stop
            if hit is None:
                break
            pos = hit.end()
            if self._index is not None and self._empty:
                out.append(self._delta("{}"))
            self._leave()
            if hit.group() in (START, CHANNEL):
                self._head = hit.group()
                self._state = _State.HEAD
        self._rest = text[pos:]
        return out

    def _leave(self) -> None:
        self._state = _State.OUTSIDE
        self._index = None
        self._json = None
        self._reasoning = False
        self._empty = True

    def _open(self, head: str, out: list[Event]) -> None:
        self._state = _State.BODY
        recipient = _RECIPIENT.search(head)
        if recipient:
            self._index = self._calls.start(out, recipient.group(1))
        self._reasoning = not recipient and _ANALYSIS.search(head) is not None
        self._empty = True
