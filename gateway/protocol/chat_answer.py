"""Writes chat completions, whole and as chunks, in OpenAI's form.

Chunks are cut from a frame that is built once per choice: only the content, the finish reason
and log-probabilities are serialised per delta.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson

from gateway.chat.parsing import (
    ContentDelta,
    Event,
    Parsed,
    ReasoningDelta,
    ToolCall,
    ToolCallStart,
)
from gateway.chat.tokens import TokenTexts
from gateway.chat.turn import TurnDelta
from gateway.protocol.sse import event
from gateway.telemetry.generation import GenerationMeter

dumps = orjson.dumps


class Counted(Protocol):
    """What the usage is told from; a ``ChatTurn`` is one."""

    meter: GenerationMeter

    @property
    def reasoning_tokens(self) -> int:
        """Output tokens so far that were thinking."""


@dataclass(frozen=True, slots=True)
class AnswerFrame:
    """What all parts of one answer share.

    Attributes:
        prefix: text to put before the answer (``echo``).
        degraded: the fallback answers; the usage says so.
        continuous_usage: every chunk carries the usage so far.
        prompt_ids: given out with the answer, as are its token ids, unless None.
        tokens_as_ids: logprobs spell tokens as ``token_id:N``.
        tier: which tier it was, where the caller asked for one.
    """

    id: str
    created: int
    model: str
    fingerprint: str
    choices: int
    texts: TokenTexts
    include_usage: bool = False
    prefix: str = ""
    degraded: bool = False
    continuous_usage: bool = False
    prompt_ids: Sequence[int] | None = None
    tokens_as_ids: bool = False
    tier: str | None = None

    def head(self, kind: str) -> dict[str, Any]:
        """The fields before ``choices``."""
        head = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }
        return head if self.tier is None else head | {"service_tier": self.tier}


def usage(counted: Counted, *, degraded: bool = False) -> dict[str, Any]:
    """The usage object: tokens of the prompt, of all choices, from the cache, of thinking."""
    meter = counted.meter
    shown: dict[str, Any] = {
        "prompt_tokens": meter.prompt_tokens,
        "completion_tokens": meter.completion_tokens,
        "total_tokens": meter.prompt_tokens + meter.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": meter.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": counted.reasoning_tokens},
    }
    if degraded:
        shown["degraded"] = True
    return shown


class ChunkWriter:
    """Turns the parts of a turn into ``chat.completion.chunk`` events."""

    def __init__(self, frame: AnswerFrame, counted: Counted) -> None:
        self._frame = frame
        self._counted = counted
        self._begun = [False] * frame.choices
        head = dumps(frame.head("chat.completion.chunk"))[:-1]
        tail = b',"usage":null}\n\n' if frame.include_usage else b"}\n\n"
        self._open = [
            b"data: " + head + b',"choices":[{"index":%d,"delta":' % index
            for index in range(frame.choices)
        ]
        self._tail = tail
        self._open_text = [begun + b'{"content":' for begun in self._open]
        self._plain_close = b'},"logprobs":null,"finish_reason":null}]' + tail
        self._head = head
        self.takes_text = frame.prompt_ids is None and not frame.continuous_usage
        """Whether a part that is nothing but text may be written by ``write_text``."""

    def write(self, part: TurnDelta) -> bytes:
        """The events for a part of the turn; empty when nothing can be shown yet."""
        index, delta = part.index, part.delta
        begin = b"" if self._begun[index] else self._begin(index)
        message = shown_events(part.events)
        with_ids = self._frame.prompt_ids is not None
        if not message and (delta.logprobs or (with_ids and delta.token_ids)):
            message["content"] = ""
        if not message and part.finish_reason is None:
            return begin
        return begin + self._event(index, message, part)

    def write_text(self, index: int, text: str) -> bytes:
        """The same for a part that is nothing but text; see ``takes_text``."""
        written = b"".join((self._open_text[index], dumps(text), self._plain_close))
        return written if self._begun[index] else self._begin(index) + written

    def finish(self) -> bytes:
        """The events after the last delta, without ``[DONE]``."""
        if not self._frame.include_usage:
            return b""
        return b"data: " + self._head + b',"choices":[],"usage":' + self._usage() + b"}\n\n"

    def _usage(self) -> bytes:
        return dumps(usage(self._counted, degraded=self._frame.degraded))

    def _begin(self, index: int) -> bytes:
        self._begun[index] = True
        start: dict[str, Any] = {"role": "assistant", "content": self._frame.prefix}
        return self._event(index, start, None)

    def _event(self, index: int, message: dict[str, Any], part: TurnDelta | None) -> bytes:
        frame = self._frame
        closing: dict[str, Any] = {"logprobs": None, "finish_reason": None}
        tail = self._tail
        if part is not None:
            delta = part.delta
            closing["finish_reason"] = part.finish_reason
            if delta.logprobs:
                entries = frame.texts.openai(delta.logprobs, as_ids=frame.tokens_as_ids)
                closing["logprobs"] = {"content": entries, "refusal": None}
            if part.stop_reason is not None:
                closing["stop_reason"] = part.stop_reason
            if frame.prompt_ids is not None:
                closing["token_ids"] = delta.token_ids
        elif frame.prompt_ids is not None:
            tail = b',"prompt_token_ids":' + dumps(list(frame.prompt_ids)) + tail
        if frame.continuous_usage:
            tail = tail.replace(b'"usage":null', b'"usage":' + self._usage())
        return self._open[index] + dumps(message) + b"," + dumps(closing)[1:-1] + b"}]" + tail


def shown_events(events: list[Event]) -> dict[str, Any]:
    """A chunk's ``delta`` that shows these events of one choice."""
    message: dict[str, Any] = {}
    calls: dict[int, dict[str, Any]] = {}
    for happened in events:
        if isinstance(happened, ContentDelta):
            message["content"] = message.get("content", "") + happened.text
        elif isinstance(happened, ReasoningDelta):
            text = message.get("reasoning", "") + happened.text
            # vLLM's name now, and the one that it and others had before.
            message["reasoning"] = message["reasoning_content"] = text
        elif isinstance(happened, ToolCallStart):
            calls[happened.index] = {
                "index": happened.index,
                "id": happened.id,
                "type": "function",
                "function": {"name": happened.name, "arguments": ""},
            }
        else:
            new = {"index": happened.index, "function": {"arguments": ""}}
            call = calls.setdefault(happened.index, new)
            call["function"]["arguments"] += happened.text
    if calls:
        message["tool_calls"] = list(calls.values())
    return message


def shown_call(call: ToolCall) -> dict[str, Any]:
    """A whole call as an entry of ``tool_calls``."""
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


@dataclass(slots=True)
class Choice:
    """A choice as it is gathered for an answer in one piece."""

    text: list[str] = field(default_factory=list)
    others: Parsed = field(default_factory=Parsed)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None
    stop_reason: int | str | None = None


class AnswerGatherer:
    """Turns the parts of a turn into one ``chat.completion``."""

    def __init__(self, frame: AnswerFrame, *, logprobs: bool) -> None:
        self._frame = frame
        self._logprobs = logprobs
        self._choices = [Choice() for _ in range(frame.choices)]
        self._prompt_logprobs: list[dict[str, Any] | None] | None = None

    def take(self, part: TurnDelta) -> None:
        """Add a part."""
        frame, delta = self._frame, part.delta
        choice = self._choices[part.index]
        for happened in part.events:
            if isinstance(happened, ContentDelta):
                choice.text.append(happened.text)
            else:
                choice.others.add((happened,))
        if frame.prompt_ids is not None:
            choice.token_ids += delta.token_ids
        if delta.logprobs:
            choice.logprobs += frame.texts.openai(delta.logprobs, as_ids=frame.tokens_as_ids)
        if delta.prompt_logprobs is not None:
            self._prompt_logprobs = frame.texts.vllm(delta.prompt_logprobs)
        if part.finish_reason is not None:
            choice.reason = part.finish_reason
            choice.stop_reason = part.stop_reason

    def body(self, counted: Counted) -> bytes:
        """The complete response body."""
        frame = self._frame
        answer = frame.head("chat.completion")
        answer["choices"] = [
            self._choice(index, choice) for index, choice in enumerate(self._choices)
        ]
        answer["usage"] = usage(counted, degraded=frame.degraded)
        if self._prompt_logprobs is not None:
            answer["prompt_logprobs"] = self._prompt_logprobs
        if frame.prompt_ids is not None:
            answer["prompt_token_ids"] = list(frame.prompt_ids)
        return dumps(answer)

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        text = self._frame.prefix + "".join(choice.text)
        calls, reasoning = choice.others.tool_calls, choice.others.reasoning
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if calls else ""),
            "refusal": None,
        }
        if reasoning:
            message["reasoning"] = message["reasoning_content"] = reasoning
        if calls:
            message["tool_calls"] = [shown_call(call) for call in calls]
        logprobs = {"content": choice.logprobs, "refusal": None} if self._logprobs else None
        shown = {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": choice.reason,
        }
        if choice.stop_reason is not None:
            shown["stop_reason"] = choice.stop_reason
        if self._frame.prompt_ids is not None:
            shown["token_ids"] = choice.token_ids
        return shown


def error_event(body: bytes) -> bytes:
    """An error envelope as the event that ends a broken stream."""
    return event(body)
