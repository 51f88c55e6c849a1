"""Writes chat completions, whole and as chunks, in OpenAI's form.

Chunks are cut from a frame that is built once per choice: only the content, the finish reason
and log-probabilities are serialised per delta.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from engine.base import Delta
from gateway.chat.tokens import TokenTexts
from gateway.chat.tool_calls import ToolCall, ToolCallParser
from gateway.protocol.sse import event
from gateway.telemetry.generation import GenerationMeter

dumps = orjson.dumps


@dataclass(frozen=True, slots=True)
class AnswerFrame:
    """What all parts of one answer share.

    Attributes:
        prefix: text to put before the answer (``echo``).
        tool_parsers: one per choice when tools were offered, else None.
        degraded: the fallback answers; the usage says so.
    """

    id: str
    created: int
    model: str
    fingerprint: str
    choices: int
    texts: TokenTexts
    include_usage: bool = False
    prefix: str = ""
    tool_parsers: list[ToolCallParser] | None = None
    degraded: bool = False

    def head(self, kind: str) -> dict[str, Any]:
        """The fields before ``choices``."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def usage(meter: GenerationMeter, frame: AnswerFrame) -> dict[str, Any]:
    """The usage object: tokens of the prompt, of all choices, and from the cache."""
    shown: dict[str, Any] = {
        "prompt_tokens": meter.prompt_tokens,
        "completion_tokens": meter.completion_tokens,
        "total_tokens": meter.prompt_tokens + meter.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": meter.cached_tokens},
    }
    if frame.degraded:
        shown["degraded"] = True
    return shown


class ChunkWriter:
    """Turns deltas into ``chat.completion.chunk`` events."""

    def __init__(self, frame: AnswerFrame) -> None:
        self._frame = frame
        self._begun = [False] * frame.choices
        self._calls = [0] * frame.choices
        head = dumps(frame.head("chat.completion.chunk"))[:-1]
        tail = b',"usage":null}\n\n' if frame.include_usage else b"}\n\n"
        self._open = [
            b"data: " + head + b',"choices":[{"index":%d,"delta":' % index
            for index in range(frame.choices)
        ]
        self._close = b"}]" + tail
        self._plain_close = b'},"logprobs":null,"finish_reason":null}]' + tail
        self._head = head

    def write(self, delta: Delta) -> bytes:
        """The events for a delta; empty when nothing can be shown yet."""
        index = delta.index
        frame = self._frame
        if frame.tool_parsers is not None:
            return self._write_with_tools(delta, frame.tool_parsers[index])
        if delta.finish_reason is None and not delta.logprobs:
            if self._begun[index]:
                if not delta.text:
                    return b""
                return self._content(index, delta.text)
            return self._begin(index) + (self._content(index, delta.text) if delta.text else b"")
        begin = b"" if self._begun[index] else self._begin(index)
        content = {"content": delta.text} if delta.text or delta.logprobs else {}
        return begin + self._event(index, content, delta, delta.finish_reason)

    def finish(self, meter: GenerationMeter) -> bytes:
        """The events after the last delta, without ``[DONE]``."""
        if not self._frame.include_usage:
            return b""
        shown = dumps(usage(meter, self._frame))
        return b"data: " + self._head + b',"choices":[],"usage":' + shown + b"}\n\n"

    def _content(self, index: int, text: str) -> bytes:
        return self._open[index] + b'{"content":' + dumps(text) + self._plain_close

    def _begin(self, index: int) -> bytes:
        self._begun[index] = True
        start: dict[str, Any] = {"role": "assistant", "content": self._frame.prefix}
        return self._event(index, start, None, None)

    def _event(
        self, index: int, message: dict[str, Any], delta: Delta | None, reason: str | None
    ) -> bytes:
        shown = None
        if delta is not None and delta.logprobs:
            shown = {"content": self._frame.texts.openai(delta.logprobs), "refusal": None}
        closing: dict[str, Any] = {"logprobs": shown, "finish_reason": reason}
        if delta is not None and delta.stop_reason is not None:
            closing["stop_reason"] = delta.stop_reason
        rest = dumps(closing)[1:-1]
        return self._open[index] + dumps(message) + b"," + rest + self._close

    def _write_with_tools(self, delta: Delta, parser: ToolCallParser) -> bytes:
        index = delta.index
        last = delta.finish_reason is not None
        content, calls = parser.feed(delta.text, last=last)
        message: dict[str, Any] = {"content": content} if content or delta.logprobs else {}
        if calls:
            message["tool_calls"] = [
                {"index": number, **call.openai()}
                for number, call in enumerate(calls, start=parser.calls - len(calls))
            ]
        begin = b"" if self._begun[index] else self._begin(index)
        if not message and not last:
            return begin
        return begin + self._event(index, message, delta, finish_reason(delta, parser))


@dataclass(slots=True)
class Choice:
    """A choice as it is gathered for an answer in one piece."""

    text: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None
    stop_reason: int | str | None = None


class AnswerGatherer:
    """Turns deltas into one ``chat.completion``."""

    def __init__(self, frame: AnswerFrame, *, logprobs: bool) -> None:
        self._frame = frame
        self._logprobs = logprobs
        self._choices = [Choice() for _ in range(frame.choices)]
        self._prompt_logprobs: list[dict[str, Any] | None] | None = None

    def take(self, delta: Delta) -> None:
        """Add a delta."""
        choice = self._choices[delta.index]
        parsers = self._frame.tool_parsers
        if parsers is None:
            choice.text.append(delta.text)
        else:
            last = delta.finish_reason is not None
            content, calls = parsers[delta.index].feed(delta.text, last=last)
            choice.text.append(content)
            choice.calls += calls
        if delta.logprobs:
            choice.logprobs += self._frame.texts.openai(delta.logprobs)
        if delta.prompt_logprobs is not None:
            self._prompt_logprobs = self._frame.texts.vllm(delta.prompt_logprobs)
        if delta.finish_reason is not None:
            parser = parsers[delta.index] if parsers else None
            choice.reason = finish_reason(delta, parser)
            choice.stop_reason = delta.stop_reason

    def body(self, meter: GenerationMeter) -> bytes:
        """The complete response body."""
        answer = self._frame.head("chat.completion")
        answer["choices"] = [
            self._choice(index, choice) for index, choice in enumerate(self._choices)
        ]
        answer["usage"] = usage(meter, self._frame)
        if self._prompt_logprobs is not None:
            answer["prompt_logprobs"] = self._prompt_logprobs
        return dumps(answer)

    def _choice(self, index: int, choice: Choice) -> dict[str, Any]:
        text = self._frame.prefix + "".join(choice.text)
        message: dict[str, Any] = {
            "role": "assistant",
            "content": text or (None if choice.calls else ""),
            "refusal": None,
        }
        if choice.calls:
            message["tool_calls"] = [call.openai() for call in choice.calls]
        logprobs = {"content": choice.logprobs, "refusal": None} if self._logprobs else None
        shown = {
            "index": index,
            "message": message,
            "logprobs": logprobs,
            "finish_reason": choice.reason,
        }
        if choice.stop_reason is not None:
            shown["stop_reason"] = choice.stop_reason
        return shown


def finish_reason(delta: Delta, parser: ToolCallParser | None) -> str | None:
    """OpenAI's finish reason: calls end in ``tool_calls`` unless the output was cut off."""
    if delta.finish_reason == "stop" and parser is not None and parser.calls:
        return "tool_calls"
    return delta.finish_reason


def error_event(body: bytes) -> bytes:
    """An error envelope as the event that ends a broken stream."""
    return event(body)
