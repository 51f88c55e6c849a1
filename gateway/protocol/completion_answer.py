"""Writes completions, whole and as chunks, in OpenAI's legacy form.

Both are objects of kind ``text_completion``. A chunk carries the new text of one choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from engine.base import Delta, TokenLogprob
from gateway.protocol.completion_logprobs import LegacyLogprobs, join, trimmed

if TYPE_CHECKING:
    from gateway.chat.completion_turn import CompletionTurn

dumps = orjson.dumps

Arrays = dict[str, list[Any]]


@dataclass(slots=True)
class Part:
    """What a delta adds to its choice."""

    text: str
    logprobs: Arrays | None
    token_ids: list[int]


class ChoiceParts:
    """Cuts deltas into parts of choices; the first part of a choice begins with the echo."""

    def __init__(self, turn: CompletionTurn) -> None:
        request = turn.request
        self._turn = turn
        self._request = request
        skip = request.fields.get("skip_special_tokens", True)
        self._writers = [
            LegacyLogprobs(
                turn.texts,
                turn.raw.decoder(skip_special_tokens=skip),
                alternatives=request.logprobs or 0,
                as_ids=request.tokens_as_ids,
            )
            for _ in range(request.choices if request.logprobs is not None else 0)
        ]
        self.begun = [False] * request.choices
        self.scores: dict[int, Sequence[TokenLogprob | None]] = {}

    def opens_heavily(self, delta: Delta) -> bool:
        """Whether the log-probabilities of a long prompt are to be written with this delta."""
        request, index = self._request, delta.index
        if self.begun[index] or not request.echo or request.logprobs is None:
            return False
        return is_heavy(self._turn, len(self._turn.prompts[index // request.n].ids))

    def take(self, delta: Delta) -> Part:
        """The part that a delta makes; part of the text may still be held back."""
        request, index = self._request, delta.index
        position = index // request.n
        if delta.prompt_logprobs is not None:
            self.scores[position] = delta.prompt_logprobs
        prompt = None
        if not self.begun[index]:
            self.begun[index] = True
            prompt = self._turn.prompts[position] if request.echo else None
        logprobs = None
        if request.logprobs is not None:
            writer = self._writers[index]
            arrays = []
            if prompt is not None:
                scores = self.scores[position]
                arrays.append(writer.prompt(prompt.ids, scores, prompt.offsets, prompt.text))
            arrays.append(writer.output(delta.logprobs or ()))
            logprobs = join(arrays)
        text = delta.text if prompt is None else prompt.text + delta.text
        return Part(text, logprobs, delta.token_ids)


def head(turn: CompletionTurn) -> dict[str, Any]:
    """The fields before ``choices``."""
    return {
        "id": turn.id,
        "object": "text_completion",
        "created": turn.created,
        "model": turn.model,
        "system_fingerprint": turn.fingerprint,
    }


def usage(turn: CompletionTurn) -> dict[str, Any]:
    """The usage object: each prompt counts once, every choice counts."""
    meter = turn.meter
    shown: dict[str, Any] = {
        "prompt_tokens": meter.prompt_tokens,
        "completion_tokens": meter.completion_tokens,
        "total_tokens": meter.prompt_tokens + meter.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": meter.cached_tokens},
    }
    if turn.degraded:
        shown["degraded"] = True
    return shown


HEAVY_ENTRIES = 20_000


def is_heavy(turn: CompletionTurn, tokens: int) -> bool:
    """Whether log-probabilities of so many tokens take long enough to write to be felt by
    other streams; they are then written in a thread."""
    request = turn.request
    alternatives = max(request.logprobs or 0, request.scored or 0)
    reported = request.logprobs is not None or request.scored is not None
    return reported and tokens * (alternatives + 2) > HEAVY_ENTRIES


class CompletionChunkWriter:
    """Turns deltas into events."""

    def __init__(self, turn: CompletionTurn) -> None:
        self._turn = turn
        self.parts = ChoiceParts(turn)
        self._head = dumps(head(turn))[:-1]
        self._continuous = turn.request.continuous_usage
        self._tail = b',"usage":null}\n\n' if turn.request.include_usage else b"}\n\n"
        self._open = b"data: " + self._head + b',"choices":[{"index":'

    def write(self, delta: Delta) -> bytes:
        """The event for a delta; empty when nothing can be shown yet."""
        request, index = self._turn.request, delta.index
        is_first = not self.parts.begun[index]
        part = self.parts.take(delta)
        begin = self._open + b'%d,"text":' % index + dumps(part.text)
        if delta.finish_reason is None and part.logprobs is None and not request.return_token_ids:
            if not part.text:
                return b""
            return begin + b',"logprobs":null,"finish_reason":null}]' + self._end()
        closing: dict[str, Any] = {
            "logprobs": part.logprobs,
            "finish_reason": delta.finish_reason,
        }
        if delta.stop_reason is not None:
            closing["stop_reason"] = delta.stop_reason
        if request.return_token_ids:
            closing["token_ids"] = part.token_ids
            if is_first:
                closing["prompt_token_ids"] = self._turn.prompts[index // request.n].ids
        return begin + b"," + dumps(closing)[1:-1] + b"}]" + self._end()

    def _end(self) -> bytes:
        if not self._continuous:
            return self._tail
        return b',"usage":' + dumps(usage(self._turn)) + b"}\n\n"

    def finish(self) -> bytes:
        """The events after the last delta, without ``[DONE]``."""
        if not self._turn.request.include_usage:
            return b""
        shown = dumps(usage(self._turn))
        return b"data: " + self._head + b',"choices":[],"usage":' + shown + b"}\n\n"


@dataclass(slots=True)
class Choice:
    """A choice as it is gathered for an answer in one piece."""

    text: list[str] = field(default_factory=list)
    logprobs: list[Arrays] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    reason: str | None = None
    stop_reason: int | str | None = None


class CompletionGatherer:
    """Turns deltas into one ``text_completion``."""

    def __init__(self, turn: CompletionTurn) -> None:
        self._turn = turn
        self.parts = ChoiceParts(turn)
        self._choices = [Choice() for _ in range(turn.request.choices)]

    def take(self, delta: Delta) -> None:
        """Add a delta."""
        choice = self._choices[delta.index]
        part = self.parts.take(delta)
        choice.text.append(part.text)
        if part.logprobs is not None:
            choice.logprobs.append(part.logprobs)
        if self._turn.request.return_token_ids:
            choice.token_ids += part.token_ids
        if delta.finish_reason is not None:
            choice.reason = delta.finish_reason
            choice.stop_reason = delta.stop_reason

    def body(self) -> bytes:
        """The complete answer as JSON."""
        return dumps(self.answer())

    def answer(self) -> dict[str, Any]:
        """The complete answer."""
        return {
            **head(self._turn),
            "choices": [self._shown(index, choice) for index, choice in enumerate(self._choices)],
            "usage": usage(self._turn),
        }

    def _shown(self, index: int, choice: Choice) -> dict[str, Any]:
        request = self._turn.request
        position = index // request.n
        shown: dict[str, Any] = {
            "index": index,
            "text": "".join(choice.text),
            "logprobs": join(choice.logprobs) if request.logprobs is not None else None,
            "finish_reason": choice.reason,
        }
        if choice.stop_reason is not None:
            shown["stop_reason"] = choice.stop_reason
        if request.prompt_logprobs is not None:
            entries = trimmed(self.parts.scores[position], request.prompt_logprobs)
            shown["prompt_logprobs"] = self._turn.texts.vllm(entries)
        if request.return_token_ids:
            shown["token_ids"] = choice.token_ids
            shown["prompt_token_ids"] = self._turn.prompts[position].ids
        return shown
