"""Builds the output of a response from what the model says, item by item, with its events.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from __future__ import annotations

from typing import Any

from gateway.chat.parsing import ContentDelta, Event, ReasoningDelta, ToolCallStart
from gateway.protocol.response_events import EventWriter
from gateway.protocol.response_items import new_id

Json = dict[str, Any]


class OutputItem:
    """An item of the output while it grows.

    Attributes:
        item: as it is shown; text is put in when the item is closed.
    """

    def __init__(self, events: EventWriter, index: int, item: Json) -> None:
        self.item = item
        self._events = events
        self._place = {"item_id": item["id"], "output_index": index}
        self._text: list[str] = []

    def opened(self) -> bytes:
        """The events at its beginning."""
        return self._item_event("output_item.added", self.item)

    def add(self, text: str, logprobs: list[Json]) -> bytes:
        """More text, with the log-probabilities of its tokens."""
        raise NotImplementedError

    def close(self, status: str) -> bytes:
        """Put the whole text into the item; the events at its end."""
        raise NotImplementedError

    def _item_event(self, kind: str, item: Json) -> bytes:
        index = self._place["output_index"]
        return self._events.write(kind, {"output_index": index, "item": item})

    def _closed(self, status: str, ending: bytes) -> bytes:
        self.item["status"] = status
        return ending + self._item_event("output_item.done", self.item)


class PartItem(OutputItem):
    """An item with one part of text: a message or reasoning."""

    def __init__(self, events: EventWriter, index: int, item: Json, kind: str) -> None:
        super().__init__(events, index, item)
        self._kind = kind
        self._place["content_index"] = 0
        self._logprobs: list[Json] = []
        extra: Json = {"logprobs": []} if kind == "output_text" else {}
        self._write = events.delta_writer(f"{kind}.delta", {**self._place, **extra})

    def opened(self) -> bytes:
        begun = super().opened()
        return begun + self._events.write(
            "content_part.added", {**self._place, "part": self._part("")}
        )

    def add(self, text: str, logprobs: list[Json]) -> bytes:
        self._text.append(text)
        if logprobs:
            self._logprobs += logprobs
            fields = {**self._place, "delta": text, "logprobs": logprobs}
            return self._events.write(f"{self._kind}.delta", fields)
        return self._write(text)

    def close(self, status: str) -> bytes:
        text = "".join(self._text)
        part = self._part(text)
        done: Json = {**self._place, "text": text}
        if self._kind == "output_text":
            done["logprobs"] = self._logprobs
        ending = self._events.write(f"{self._kind}.done", done)
        ending += self._events.write("content_part.done", {**self._place, "part": part})
        self.item["content"] = [part]
        return self._closed(status, ending)

    def _part(self, text: str) -> Json:
        if self._kind == "reasoning_text":
            return {"type": "reasoning_text", "text": text}
        return {
            "type": "output_text",
            "text": text,
            "annotations": [],
            "logprobs": list(self._logprobs),
        }


class CallItem(OutputItem):
    """A function call."""

    def __init__(self, events: EventWriter, index: int, item: Json) -> None:
        super().__init__(events, index, item)
        self._write = events.delta_writer("function_call_arguments.delta", self._place)

    def add(self, text: str, logprobs: list[Json]) -> bytes:
        self._text.append(text)
        return self._write(text)

    def close(self, status: str) -> bytes:
        arguments = "".join(self._text)
        self.item["arguments"] = arguments
        fields = {**self._place, "arguments": arguments, "name": self.item["name"]}
        ending = self._events.write("function_call_arguments.done", fields)
        return self._closed(status, ending)


class OutputBuilder:
    """Turns the events of one choice into items.

    Attributes:
        items: closed and open ones, in order, as they are shown.
    """

    def __init__(self, events: EventWriter) -> None:
        self.items: list[Json] = []
        self._events = events
        self._open: OutputItem | None = None
        self._space = ""
        self._logprobs: list[Json] = []

    def take(self, event: Event, logprobs: list[Json]) -> bytes:
        """Add what the model said; the events that it makes."""
        if isinstance(event, ContentDelta):
            return self._take_text(event.text, logprobs)
        self._space = ""
        self._logprobs = []
        if isinstance(event, ToolCallStart):
            return self._begin_call(event)
        begun = b""
        if isinstance(event, ReasoningDelta) and not self._is_open("reasoning"):
            item = {"id": new_id("rs"), "type": "reasoning", "summary": [], "content": []}
            begun = self._begin(PartItem(*self._next(item), "reasoning_text"))
        assert self._open is not None
        return begun + self._open.add(event.text, [])

    def keep(self, logprobs: list[Json]) -> None:
        """Log-probabilities of tokens whose text is still held back."""
        self._logprobs += logprobs

    def finish(self, status: str) -> bytes:
        """Close what is open. An answer of nothing at all is an empty message."""
        written = b""
        if not self.items:
            text, self._space = self._space, ""
            written = self._begin_message() + self._add(text)
        elif self._logprobs and self._is_open("message"):
            # The last token may have no text, and come alone or together with one that has.
            written = self._add("")
        return written + self._close(status)

    def _take_text(self, text: str, logprobs: list[Json]) -> bytes:
        """Space before anything else is held back: models break lines before a call."""
        self._logprobs += logprobs
        if self._is_open("message"):
            return self._add(text)
        self._space += text
        if not self._space.strip():
            return b""
        text, self._space = self._space, ""
        return self._begin_message() + self._add(text)

    def _add(self, text: str) -> bytes:
        assert self._open is not None
        logprobs, self._logprobs = self._logprobs, []
        return self._open.add(text, logprobs) if text or logprobs else b""

    def _begin_message(self) -> bytes:
        item = {"id": new_id("msg"), "type": "message", "role": "assistant", "content": []}
        return self._begin(PartItem(*self._next(item), "output_text"))

    def _begin_call(self, event: ToolCallStart) -> bytes:
        item = {
            "id": new_id("fc"),
            "type": "function_call",
            "call_id": event.id,
            "name": event.name,
            "arguments": "",
        }
        return self._begin(CallItem(*self._next(item)))

    def _next(self, item: Json) -> tuple[EventWriter, int, Json]:
        """What a new item is made from, behind the open one."""
        item["status"] = "in_progress"
        return self._events, len(self.items), item

    def _begin(self, opened: OutputItem) -> bytes:
        ended = self._close("completed")
        self._open = opened
        self.items.append(opened.item)
        return ended + opened.opened()

    def _close(self, status: str) -> bytes:
        ended, self._open = self._open, None
        return ended.close(status) if ended is not None else b""

    def _is_open(self, kind: str) -> bool:
        return self._open is not None and self._open.item["type"] == kind
