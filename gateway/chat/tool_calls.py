"""Splits Hermes-style tool calls out of a model's text, however it is cut into pieces.

The format is ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``. Text that may still
become a marker is held back; a block that is no valid call is given back as text.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import orjson

OPEN = "<tool_call>"
CLOSE = "</tool_call>"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One complete call; ``arguments`` is JSON text, as OpenAI sends it."""

    id: str
    name: str
    arguments: str

    def openai(self) -> dict[str, Any]:
        """The call as an entry of ``tool_calls``."""
        return {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }


class ToolCallParser:
    """Takes text piece by piece; yields what is content and what is a call.

    Attributes:
        calls: number of calls found so far.
    """

    __slots__ = ("_buffer", "_inside", "_most", "_space", "calls")

    def __init__(self, *, parallel: bool) -> None:
        self._buffer = ""
        self._inside = False
        self._most = None if parallel else 1
        self._space = ""
        self.calls = 0

    def feed(self, text: str, *, last: bool = False) -> tuple[str, list[ToolCall]]:
        """New content and new calls. ``last`` gives out what is still held back."""
        self._buffer += text
        content = ""
        calls: list[ToolCall] = []
        while True:
            if not self._inside:
                before, mark, rest = self._buffer.partition(OPEN)
                if not mark:
                    keep = 0 if last else held_back(before)
                    self._buffer = before[len(before) - keep :]
                    content += self._without_trailing_space(before[: len(before) - keep])
                    break
                content += self._without_trailing_space(before)
                self._inside = True
                self._buffer = rest
            body, mark, rest = self._buffer.partition(CLOSE)
            if not mark and not last:
                break
            self._inside = False
            self._buffer = rest
            call = read_call(body)
            if call is None:
                content += self._without_trailing_space(OPEN + body + mark)
            else:
                self._space = ""
                if self._most is None or self.calls < self._most:
                    self.calls += 1
                    calls.append(call)
        if last and not self.calls:
            content += self._space
        return content, calls

    def _without_trailing_space(self, text: str) -> str:
        """Hold white space back until text follows: before a call it only separates."""
        text = self._space + text
        bare = text.rstrip()
        self._space = text[len(bare) :]
        return bare


def held_back(text: str) -> int:
    """Length of the longest end of ``text`` that may be the beginning of a marker."""
    for length in range(min(len(text), len(OPEN) - 1), 0, -1):
        if OPEN.startswith(text[-length:]):
            return length
    return 0


def read_call(body: str) -> ToolCall | None:
    """The call in a block, or None when it is not one."""
    try:
        call = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return None
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):
        shown = arguments
    elif isinstance(arguments, dict):
        shown = orjson.dumps(arguments).decode()
    else:
        return None
    return ToolCall(f"call_{os.urandom(12).hex()}", call["name"], shown)
