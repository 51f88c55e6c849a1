"""Anthropic's messages through hooks, in one piece and event by event.

Source of the shapes: ``anthropic.types.Message`` and ``RawMessageStreamEvent``. A content block
is a text of its own.
"""

from __future__ import annotations

import orjson

from gateway.hooks.answer import HookedAnswer, Piece, Text
from gateway.hooks.api import Channel
from gateway.protocol.anthropic_json import whole_object
from gateway.relay.hooked.texts import (
    Json,
    Texts,
    holds_no_text,
    rewritten,
    rewritten_strings,
    without_text,
)

# Kind of block, its channel and the field that holds its text.
TEXTS: dict[str, tuple[Channel, str]] = {
    "text": ("content", "text"),
    "thinking": ("reasoning", "thinking"),
}
USES = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
# Kind of delta, its channel and the field that holds its text.
DELTAS: dict[str, tuple[Channel, str]] = {
    "text_delta": ("content", "text"),
    "thinking_delta": ("reasoning", "thinking"),
    "input_json_delta": ("arguments", "partial_json"),
}
KIND_OF = {channel: (kind, field) for kind, (channel, field) in DELTAS.items()}
# Encrypted, or a checksum.
OPAQUE = frozenset({"signature", "data"})
REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}


class MessageRewriter:
    """Of one answer. See ``gateway.relay.hooked.stream.Rewriter``."""

    def __init__(self, answer: HookedAnswer) -> None:
        self._answer = answer

    def whole(self, document: Json) -> None:
        content = document.get("content")
        blocks = content if isinstance(content, list) else []
        document["content"] = [self._block(b, i) for i, b in enumerate(blocks) if type(b) is dict]
        if isinstance(reason := document.get("stop_reason"), str):
            self._answer.finish(0, REASONS.get(reason, reason))

    def event(self, document: Json) -> list[Json]:
        texts = Texts(self._answer, 0)
        without_text(document, FIELDS)
        kept = self._event(document, document.get("type"), texts)
        shown = [delta_event(piece) for piece in texts.before]
        return [*shown, document] if kept else shown

    def end(self) -> list[Json]:
        return [delta_event(piece) for piece in self._answer.interrupt(0)]

    def _event(self, document: Json, kind: object, texts: Texts) -> bool:
        """Rewrite what an event holds; whether it is to be sent."""
        if kind == "content_block_delta":
            return self._delta(document, texts)
        if kind not in ("ping", "error"):
            texts.stop()
        if kind == "message_start":
            if isinstance(message := document.get("message"), dict):
                message["content"] = []
        elif kind == "content_block_start":
            block = document.get("content_block")
            document["content_block"] = self._begun(block, texts, index_of(document))
        elif kind == "message_delta":
            delta = document.get("delta")
            reason = delta.get("stop_reason") if isinstance(delta, dict) else None
            if isinstance(reason, str):
                texts.finish(REASONS.get(reason, reason))
        return kind in KNOWN

    def _delta(self, document: Json, texts: Texts) -> bool:
        delta = document.get("delta")
        if not isinstance(delta, dict):
            return False
        found = DELTAS.get(str(delta.get("type")))
        if found is None:
            # What was held back of the thinking comes before its signature.
            texts.stop()
            return delta.get("type") == "signature_delta"
        channel, field = found
        text: Text = (channel, index_of(document))
        document["delta"] = delta = {"type": delta["type"], field: delta.get(field)}
        if not isinstance(delta[field], str):
            return False
        if not delta[field]:
            return True
        texts.put(text, delta, field)
        return bool(delta[field])

    def _begun(self, block: object, texts: Texts, index: int) -> Json:
        """A block as its first event shows it."""
        if not isinstance(block, dict):
            return {"type": "text", "text": ""}
        kind = str(block.get("type"))
        if kind in TEXTS:
            channel, field = TEXTS[kind]
            block = text_alone(block, field)
            if block.get(field):
                texts.put((channel, index), block, field)
            return block
        return self._block(block, index)

    def _block(self, block: Json, index: int) -> Json:
        """A whole block."""
        kind = str(block.get("type"))
        if kind in TEXTS:
            channel, field = TEXTS[kind]
            block = text_alone(block, field)
            if text := block.get(field):
                block[field] = rewritten(self._answer, 0, (channel, index), text)
            return block
        known = {name: block[name] for name in OPAQUE if isinstance(block.get(name), str)}
        if kind in USES and isinstance(given := block.get("input"), dict):
            text = orjson.dumps(given).decode()
            known["input"] = whole_object(
                rewritten(self._answer, 0, ("arguments", index), text) if given else text
            )
        rest = {name: value for name, value in block.items() if name not in known}
        found = rewritten_strings(self._answer, 0, rest) | known
        return {name: found[name] for name in block}


def text_alone(block: Json, field: str) -> Json:
    """A block of text or thinking without what else may be spelled in it."""
    kept = ("type", field, *OPAQUE)
    return {
        name: value
        for name, value in block.items()
        if holds_no_text(value) or (name in kept and isinstance(value, str))
    }


FIELDS = frozenset({"type", "message", "content_block", "delta", "usage", "error"})
KNOWN = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
        "ping",
    }
)


def index_of(document: Json) -> int:
    """Which block an event is about."""
    index = document.get("index")
    return index if type(index) is int else 0


def delta_event(piece: Piece) -> Json:
    """An event for what was held back."""
    (channel, index), text = piece
    kind, field = KIND_OF[channel]
    return {
        "type": "content_block_delta",
        "index": index if type(index) is int else 0,
        "delta": {"type": kind, field: text},
    }
