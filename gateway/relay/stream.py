"""Reads along in a stream of events that is passed on: its usage, its end, its errors."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.relay.errors import Failed, NotUnderstood
from gateway.relay.events import payload_of
from gateway.relay.usage import Usage
from gateway.routing.config import Api

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})


class StreamReader:
    """Sees every event of one stream.

    Args:
        drops_usage: the chunk that holds nothing but usage was not asked for by the client.

    Attributes:
        begun: an event with data has been seen.
        complete: the stream has said that it ends here.
        outputs: events that brought something; stands in for output tokens that nobody counted.
        finish: why the first choice ended, as the server says.
        document: what the last event held, or None.
        model: under which name the answer came, or None.
    """

    __slots__ = (
        "_drops_usage",
        "_see",
        "begun",
        "complete",
        "document",
        "finish",
        "model",
        "outputs",
        "usage",
    )

    def __init__(self, api: Api, *, drops_usage: bool) -> None:
        self.begun = False
        self.complete = False
        self.outputs = 0
        self.finish: str | None = None
        self.document: dict[str, Any] | None = None
        self.model: str | None = None
        self.usage = Usage()
        self._drops_usage = drops_usage
        self._see = {"messages": self._see_message, "responses": self._see_response}.get(
            api, self._see_chunk
        )

    @property
    def ended_well(self) -> bool:
        """Whether an end of the connection is the end of the answer. Some servers leave the
        last event out; every choice has told its reason by then."""
        return self.complete or self.finish is not None

    @property
    def has_output(self) -> bool:
        """Whether something of the answer has come, and not only that one begins."""
        return self.outputs > 0 or self.complete or self.finish is not None

    def see(self, event: bytes) -> bool:
        """Whether to pass the event on. Raises NotUnderstood, and Failed for an error event."""
        payload = payload_of(event)
        self.document = None
        if payload is None:
            raise NotUnderstood("a stream of something else than events")
        if not payload:
            return self.begun
        if payload == b"[DONE]":
            if not self.begun:
                raise NotUnderstood("a stream without an answer")
            self.complete = True
            return True
        try:
            document = orjson.loads(payload)
        except orjson.JSONDecodeError:
            raise NotUnderstood("an event that is not JSON") from None
        if not isinstance(document, dict):
            raise NotUnderstood("an event that is not a JSON object")
        if document.get("error") is not None and document.get("type") != "response.failed":
            raise Failed("an error in place of an event")
        self.document = document
        if self.model is None:
            self.model = model_of(document)
        passes = self._see(document)
        self.begun = True
        return passes

    def _see_chunk(self, document: dict[str, Any]) -> bool:
        choices = document.get("choices")
        usage = document.get("usage")
        if usage:
            self.usage.read(usage)
            if not choices and self._drops_usage:
                return False
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                raise NotUnderstood("a choice that is not a JSON object")
            delta = choice.get("delta")
            if choice.get("text") or (isinstance(delta, dict) and has_output(delta)):
                self.outputs += 1
            if isinstance(reason := choice.get("finish_reason"), str):
                self.finish = self.finish or reason
        return True

    def _see_message(self, document: dict[str, Any]) -> bool:
        kind = document.get("type")
        if kind == "message_start":
            message = document.get("message")
            self.usage.read(message.get("usage") if isinstance(message, dict) else None)
        elif kind == "content_block_delta":
            self.outputs += 1
        elif kind == "message_delta":
            self.usage.read(document.get("usage"))
        elif kind == "message_stop":
            self.complete = True
        elif kind == "ping":
            return self.begun
        return True

    def _see_response(self, document: dict[str, Any]) -> bool:
        kind = document.get("type")
        if kind == "error":
            raise Failed("an error in place of an event")
        if isinstance(kind, str) and kind.endswith(".delta"):
            self.outputs += 1
        elif kind in _ENDS:
            self.complete = True
            response = document.get("response")
            self.usage.read(response.get("usage") if isinstance(response, dict) else None)
        return True


def model_of(document: dict[str, Any]) -> str | None:
    """The name under which an answer comes, in any of the protocols."""
    for holder in (document, document.get("message"), document.get("response")):
        if isinstance(holder, dict) and isinstance(name := holder.get("model"), str):
            return name
    return None


def has_output(delta: dict[str, Any]) -> bool:
    """Whether a chat chunk's delta brings more than a role."""
    return any(value for name, value in delta.items() if name != "role")
