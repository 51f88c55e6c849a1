"""Hermes tool calls: JSON between ``<tool_call>`` tags.

Source: the Hermes 2 Pro model card and Hermes-Function-Calling (NousResearch), and the chat
templates of Qwen2.5, QwQ, Qwen3, Granite 4 and SmolLM3, which write::

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Oslo"}}
    </tool_call>
"""

from __future__ import annotations

from typing import Final

from gateway.chat.parsing.base import CallCounter, Event
from gateway.chat.parsing.jsoncalls import CallObject
from gateway.chat.parsing.jsonvalue import Status
from gateway.chat.parsing.markers import MarkerFinder, MarkerParser

OPEN: Final = "<tool_call>"
CLOSE: Final = "</tool_call>"
_FINDER: Final = MarkerFinder(OPEN)


class HermesParser(MarkerParser):
    """A missing closing tag is forgiven: the JSON says where a call ends.

    A tag inside a JSON string is part of that string.
    """

    def __init__(self, calls: CallCounter) -> None:
        super().__init__(_FINDER, calls=calls)
        self._call: CallObject | None = None

    def _begin(self, marker: str) -> None:
        self._call = CallObject(self._calls)

    def _held(self) -> str:
        return self._call.held if self._call else ""

    def _read(self, text: str, pos: int, final: bool, out: list[Event]) -> int:
        if self._call is not None:
            pos, status = self._call.read(text, pos, out)
            if status is Status.FAILED:
                self._give_up(out, self._call.held)
                return pos
            if status is Status.MORE:
                return pos
            self._call = None
        return self._read_close(text, pos, final, CLOSE)
