"""The Responses API through hooks, in one piece and event by event.

Source of the shapes: ``openai.types.responses.Response`` and ``ResponseStreamEvent``. A text
comes in deltas, and again whole in the events that end it, its part, its item and the response:
what has become of the deltas is what those say.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.hooks.answer import HookedAnswer, Text
from gateway.hooks.api import Channel
from gateway.relay.hooked.texts import (
    Json,
    Texts,
    holds_no_text,
    rewritten,
    rewritten_strings,
    without_text,
)

_DELTA = re.compile(r"response\.(\w+)\.(delta|done)")
# Where the texts of items and parts are: kind of the object, its field, kind of its deltas.
FIELDS: dict[str, tuple[str, str]] = {
    "output_text": ("text", "output_text"),
    "refusal": ("refusal", "refusal"),
    "summary_text": ("text", "reasoning_summary_text"),
    "reasoning_text": ("text", "reasoning_text"),
    "function_call": ("arguments", "function_call_arguments"),
    "mcp_call": ("arguments", "mcp_call_arguments"),
    "custom_tool_call": ("input", "custom_tool_call_input"),
    "code_interpreter_call": ("code", "code_interpreter_call_code"),
}
PARTS = frozenset({"output_text", "refusal", "summary_text", "reasoning_text"})
FIELD_OF = {delta: field for field, delta in FIELDS.values()}
OPAQUE = frozenset({"encrypted_content"})
# Of an item, its parts.
LISTS = ("content", "summary")
# What tells where an event belongs.
PLACES = frozenset({"type", "item_id", "response_id", "name"})
ENDS = {"completed": "stop", "incomplete": "length"}


class ResponseRewriter:
    """Of one answer. See ``gateway.relay.hooked.stream.Rewriter``."""

    def __init__(self, answer: HookedAnswer) -> None:
        self._answer = answer
        self._shown: dict[Text, str] = {}
        self._events: dict[Text, Json] = {}
        self._number: int | None = None

    def whole(self, document: Json) -> None:
        self._response(document)
        if reason := reason_of(document):
            self._answer.finish(0, reason)

    def event(self, document: Json) -> list[Json]:
        texts = Texts(self._answer, 0)
        kept = self._event(document, str(document.get("type")), texts)
        shown = [self._delta_event(text, piece) for text, piece in texts.before]
        return self._numbered([*shown, document] if kept else shown, document)

    def end(self) -> list[Json]:
        pieces = self._answer.interrupt(0)
        return self._numbered([self._delta_event(*piece) for piece in pieces], {})

    def _event(self, document: Json, kind: str, texts: Texts) -> bool:
        """Rewrite what an event holds; whether it is to be sent."""
        found = _DELTA.fullmatch(kind)
        if found is not None and found[1] in FIELD_OF:
            text = text_of(found[1], document)
            field = "delta" if found[2] == "delta" else FIELD_OF[found[1]]
            if "logprobs" in document:
                document["logprobs"] = []
            without_text(document, PLACES | {field})
            if field == "delta":
                return self._delta(document, text, texts)
            texts.stop()
            self._note_before(texts)
            self._replace(document, field, text)
            return True
        texts.stop()
        self._note_before(texts)
        return self._ending(document, kind, texts)

    def _delta(self, document: Json, text: Text, texts: Texts) -> bool:
        if not isinstance(document.get("delta"), str):
            return False
        self._events[text] = {**document, "delta": ""}
        self._shown.setdefault(text, "")
        if not document["delta"]:
            return True
        texts.put(text, document, "delta")
        self._note_before(texts)
        self._shown[text] += document["delta"]
        return bool(document["delta"])

    def _ending(self, document: Json, kind: str, texts: Texts) -> bool:
        """Events that tell of whole things."""
        place = document.get("output_index")
        if kind.startswith("response.output_item."):
            without_text(document, PLACES | {"item"})
            document["item"] = self._item(document.get("item"), place)
        elif kind.endswith(("_part.added", "_part.done")):
            without_text(document, PLACES | {"part"})
            index = document.get("content_index", document.get("summary_index"))
            document["part"] = self._part(document.get("part"), place, index)
        elif isinstance(response := document.get("response"), dict):
            without_text(document, PLACES | {"response"})
            if reason := reason_of(response):
                texts.finish(reason)
            self._response(response)
        else:
            return all(name in PLACES or holds_no_text(value) for name, value in document.items())
        return True

    def _response(self, response: Json) -> None:
        output = response.get("output")
        items = output if isinstance(output, list) else []
        response["output"] = [self._item(item, i) for i, item in enumerate(items) if item]
        for name in ("output_text", "output_messages"):
            response.pop(name, None)

    def _item(self, item: Any, place: Any) -> Any:
        """An item of the output; what the gateway does not know is rewritten string by string."""
        if not isinstance(item, dict):
            return rewritten_strings(self._answer, 0, item)
        lists = {name: item[name] for name in LISTS if isinstance(item.get(name), list)}
        parts = {
            name: [self._part(part, place, index) for index, part in enumerate(held)]
            for name, held in lists.items()
        }
        return self._held(item, place, None, parts)

    def _part(self, part: Any, place: Any, index: Any) -> Any:
        """A part of an item."""
        if not isinstance(part, dict):
            return rewritten_strings(self._answer, 0, part)
        return self._held(part, place, index)

    def _held(self, holder: Json, place: Any, index: Any, parts: Json | None = None) -> Json:
        """An item, whose parts have been seen to, or a part of one."""
        kind = str(holder.get("type"))
        field, delta = FIELDS.get(kind, ("", ""))
        known = parts or {}
        if field in holder:
            self._replace(holder, field, (channel_of(delta), (delta, place, index)))
            known[field] = holder[field]
        for name in ("annotations", "logprobs"):
            if kind in PARTS and name in holder:
                known[name] = []
        known |= {name: holder[name] for name in OPAQUE if name in holder}
        rest = {name: value for name, value in holder.items() if name not in known}
        found = rewritten_strings(self._answer, 0, rest) | known
        return {name: found[name] for name in holder}

    def _replace(self, holder: Json, field: str, text: Text) -> None:
        """A text that has come in deltas, or else now."""
        if text in self._shown:
            holder[field] = self._shown[text]
        elif isinstance(whole := holder.get(field), str):
            if whole:
                self._shown[text] = rewritten(self._answer, 0, text, whole)
                holder[field] = self._shown[text]
        else:
            holder[field] = None

    def _note_before(self, texts: Texts) -> None:
        for text, piece in texts.before:
            self._shown[text] = self._shown.get(text, "") + piece

    def _delta_event(self, text: Text, piece: str) -> Json:
        """An event for what was held back."""
        return {**self._events[text], "delta": piece}

    def _numbered(self, events: list[Json], document: Json) -> list[Json]:
        """The events, numbered through as those of one stream."""
        if self._number is None and type(first := document.get("sequence_number")) is int:
            self._number = first
        if self._number is not None:
            for number, event in enumerate(events, self._number):
                event["sequence_number"] = number
            self._number += len(events)
        return events


def channel_of(kind: str) -> Channel:
    """What a kind of delta is to hooks."""
    if kind.startswith("reasoning"):
        return "reasoning"
    return "arguments" if kind.endswith(("_arguments", "_input", "_code")) else "content"


def text_of(kind: str, document: Json) -> Text:
    """Which text an event is about."""
    index = document.get("summary_index" if "summary" in kind else "content_index")
    place = document.get("output_index")
    if not all(value is None or type(value) is int for value in (index, place)):
        return channel_of(kind), (kind, None, None)
    return channel_of(kind), (kind, place, index)


def reason_of(response: Json) -> str | None:
    """Why an answer ended, as chat completions say it; None where it has not, or broke off."""
    output = response.get("output")
    for item in output if isinstance(output, list) else ():
        if isinstance(item, dict) and item.get("type") == "function_call":
            return "tool_calls" if response.get("status") == "completed" else None
    return ENDS.get(str(response.get("status")))
