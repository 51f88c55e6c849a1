"""Writes Anthropic's messages: as a stream of events, or gathered from the same events.

Source of the shapes: ``anthropic.types.RawMessageStreamEvent`` and ``anthropic.types.Message``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.chat.parsing import ContentDelta, Event, ReasoningDelta, ToolCallStart
from gateway.chat.turn import ChatTurn, TurnDelta
from gateway.protocol.anthropic_json import whole_object
from gateway.protocol.anthropic_request import ThinkingDisplay
from gateway.protocol.sse import named_event

AnswerEvent = dict[str, Any]

PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def frame(event: AnswerEvent) -> bytes:
    """A server-sent event, named after its type as the SDKs want it."""
    return named_event(event["type"].encode(), orjson.dumps(event))


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """What the request says about how its answer looks.

    Attributes:
        stop_sequences: the caller's own; other stops are an ordinary end.
        fills_context: the output is bounded by the context, not by ``max_tokens``.
    """

    stop_sequences: frozenset[str]
    thinking: ThinkingDisplay
    fills_context: bool


class EventWriter:
    """Turns the parts of a chat turn into events, block by block.

    At most one block is open at a time. A text block is opened by the first text that is not
    blank, and begins after the line breaks that separate it from the thinking: models put them
    around thinking and calls, where a separate block needs none.
    """

    def __init__(self, turn: ChatTurn, plan: AnswerPlan) -> None:
        self._turn = turn
        self._plan = plan
        self._index = -1
        self._kind: str | None = None
        self._blank = ""
        self._thought = hashlib.sha256()
        self._after_thinking = False
        self._call = -1
        self._called = False
        self._end: TurnDelta | None = None

    def start(self) -> AnswerEvent:
        """The first event; write it once the first part has been read."""
        turn = self._turn
        message: dict[str, Any] = {
            "id": turn.id,
            "type": "message",
            "role": "assistant",
            "model": turn.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage(turn),
        }
        return {"type": "message_start", "message": message}

    def write(self, part: TurnDelta) -> Iterator[AnswerEvent]:
        """The events for a part."""
        if part.finish_reason is not None:
            self._end = part
        for event in part.events:
            yield from self._write(event)

    def finish(self) -> Iterator[AnswerEvent]:
        """The events after the last part."""
        if self._blank and self._index < 0:
            text = self._blank
            yield from self._open("text", {"type": "text", "text": ""})
            yield self._delta({"type": "text_delta", "text": text})
        yield from self._close()
        reason, sequence = self._stop()
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence},
            "usage": usage(self._turn),
        }
        yield {"type": "message_stop"}

    def _write(self, event: Event) -> Iterator[AnswerEvent]:
        if isinstance(event, ContentDelta):
            yield from self._write_text(event.text)
        elif isinstance(event, ReasoningDelta):
            yield from self._write_thinking(event.text)
        elif isinstance(event, ToolCallStart):
            self._call = event.index
            self._called = True
            block = {"type": "tool_use", "id": use_id(event.id), "name": event.name, "input": {}}
            yield from self._open("tool_use", block)
        elif event.index == self._call and self._kind == "tool_use":
            yield self._delta({"type": "input_json_delta", "partial_json": event.text})

    def _write_text(self, text: str) -> Iterator[AnswerEvent]:
        if self._kind != "text":
            self._blank += text
            if not self._blank.strip():
                return
            text = self._blank.lstrip("\n") if self._after_thinking else self._blank
            self._after_thinking = False
            yield from self._open("text", {"type": "text", "text": ""})
        yield self._delta({"type": "text_delta", "text": text})

    def _write_thinking(self, text: str) -> Iterator[AnswerEvent]:
        self._after_thinking = True
        if self._plan.thinking == "dropped":
            return
        if self._kind != "thinking":
            block = {"type": "thinking", "thinking": "", "signature": ""}
            yield from self._open("thinking", block)
        self._thought.update(text.encode(errors="replace"))
        if self._plan.thinking == "shown":
            yield self._delta({"type": "thinking_delta", "thinking": text})

    def _open(self, kind: str, block: dict[str, Any]) -> Iterator[AnswerEvent]:
        yield from self._close()
        self._blank = ""
        self._index += 1
        self._kind = kind
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _close(self) -> Iterator[AnswerEvent]:
        if self._kind is None:
            return
        if self._kind == "thinking":
            # Clients pass thinking back with its signature, and drop it when there is none.
            signature = base64.b64encode(self._thought.digest()).decode()
            yield self._delta({"type": "signature_delta", "signature": signature})
            self._thought = hashlib.sha256()
        yield {"type": "content_block_stop", "index": self._index}
        self._kind = None

    def _delta(self, delta: dict[str, Any]) -> AnswerEvent:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}

    def _stop(self) -> tuple[str, str | None]:
        """``stop_reason`` and ``stop_sequence``."""
        end = self._end
        if end is not None and end.finish_reason == "length":
            return (
                "model_context_window_exceeded" if self._plan.fills_context else "max_tokens"
            ), None
        stop = end.stop_reason if end is not None else None
        if isinstance(stop, str) and stop in self._plan.stop_sequences:
            return "stop_sequence", stop
        return "tool_use" if self._called else "end_turn", None


class MessageGatherer:
    """Puts the events of one answer together to a message, as the SDKs do."""

    def __init__(self, start: AnswerEvent) -> None:
        self.message: dict[str, Any] = start["message"]
        self._pieces: list[str] = []

    def take(self, event: AnswerEvent) -> None:
        """Add an event."""
        kind = event["type"]
        if kind == "content_block_start":
            self.message["content"].append(event["content_block"])
            self._pieces = []
        elif kind == "content_block_delta":
            delta = event["delta"]
            name = delta["type"].removesuffix("_delta")
            if name == "signature":
                self.message["content"][-1]["signature"] = delta["signature"]
            else:
                self._pieces.append(delta["partial_json" if name == "input_json" else name])
        elif kind == "content_block_stop":
            block = self.message["content"][-1]
            text = "".join(self._pieces)
            if block["type"] == "tool_use":
                block["input"] = whole_object(text)
            else:
                block[block["type"]] = text
        elif kind == "message_delta":
            self.message |= event["delta"]
            self.message["usage"] = event["usage"]


def use_id(call_id: str) -> str:
    """The id of a tool use, in Anthropic's shape where it is the gateway's own choice."""
    return "toolu_" + call_id[5:] if call_id.startswith("call_") else call_id


def usage(turn: ChatTurn) -> dict[str, Any]:
    """Tokens so far. Anthropic's ``input_tokens`` leave out what the cache had."""
    meter = turn.meter
    return {
        "input_tokens": meter.prompt_tokens - meter.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": meter.cached_tokens,
        "output_tokens": meter.completion_tokens,
        "output_tokens_details": {"thinking_tokens": turn.reasoning_tokens},
    }
