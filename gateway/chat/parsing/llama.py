"""Llama 3's JSON tool calls.

Source: Meta's Llama 3.1 prompt format and its chat template, which writes one bare object,
with ``<|python_tag|>`` in front in some variants; several calls are separated by ``;``::

    <|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}
"""

from __future__ import annotations

import re
from typing import Final

from gateway.chat.parsing.base import CallCounter, Event, ToolSchemas
from gateway.chat.parsing.jsoncalls import CallObject
from gateway.chat.parsing.jsonvalue import Status
from gateway.chat.parsing.markers import GAP_LIMIT, MarkerFinder, MarkerParser, opens

TAG: Final = "<|python_tag|>"
_WITH_BARE: Final = MarkerFinder(TAG, "{")
_TAG_ONLY: Final = MarkerFinder(TAG)
_SEPARATOR: Final = re.compile(r"\s*[;,]?\s*")


class LlamaJsonParser(MarkerParser):
    """A ``{`` may open a call anywhere, until one has turned out not to: a model that is
    writing other JSON, or code, is not searched for calls inside it.

    Without the tag the name must be that of a tool, where the tools are known.
    """

    def __init__(self, calls: CallCounter, tools: ToolSchemas) -> None:
        super().__init__(_WITH_BARE, calls=calls)
        self._tools = tools
        self._call: CallObject | None = None
        self._tagged = False
        self._separator = ""

    def _accept(self, name: str) -> bool:
        return self._tagged or not self._tools or name in self._tools

    def _begin(self, marker: str) -> None:
        self._tagged = marker == TAG
        self._open_call()
        if self._call is not None and not self._tagged:
            self._opening = self._opening[:-1]
            self._call.read("{", 0, [])

    def _open_call(self) -> None:
        self._call = CallObject(self._calls, bare=True, accept=self._accept)

    def _held(self) -> str:
        return self._separator + (self._call.held if self._call else "")

    def _read(self, text: str, pos: int, final: bool, out: list[Event]) -> int:
        while True:
            if self._call is not None:
                before = self._calls.count
                pos, status = self._call.read(text, pos, out)
                if self._calls.count > before:
                    self._separator = ""
                if status is Status.FAILED:
                    if not self._tagged:
                        self._late = _TAG_ONLY
                    self._give_up(out, self._held())
                    self._separator = ""
                    return pos
                if status is Status.MORE:
                    return pos
                self._call = None
            match = _SEPARATOR.match(text, pos)
            end = match.end() if match else pos
            if end - pos > GAP_LIMIT:
                self._close()
                return pos
            tag = opens(text, end, TAG)
            if end == len(text) or tag is None:
                if not final:
                    return pos
                pos = end
            elif tag:
                self._opening = text[pos:end] + TAG
                self._calls_before = self._calls.count
                self._begin(TAG)
                pos = end + len(TAG)
                continue
            elif text[end] == "{":
                self._separator = text[pos:end]
                self._open_call()
                pos = end
                continue
            self._close()
            return pos
