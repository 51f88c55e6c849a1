"""What a parser of model output is, and the events that it yields.

A parser turns generated text into reasoning, content and tool calls. It is fed the text as
it arrives, cut anywhere, and is not thread-safe: one parser per choice of one request.

Guarantees of every parser in this package:

* the events do not depend on the cuts: merged (``collect``), they are those of one cut;
* a marker, or the beginning of one, is never emitted as text: at the end of a feed only text
  that may still become a marker, and the head of a call up to its name, is held back;
* time is linear in the text, and what is held back is bounded by ``HELD_LIMIT``;
* no input raises. Text that turns out not to be a call is content, with nothing lost.
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeAlias

HELD_LIMIT: Final = 1 << 18
"""Most characters of one unfinished call that are held back before it counts as content."""

ToolSchemas: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Name of each tool of the request, with the JSON Schema of its parameters (may be empty)."""

# Not frozen: assigning through object.__setattr__ would triple the cost of the commonest
# object of a stream. Treat them as values all the same.


@dataclass(slots=True)
class ReasoningDelta:
    """More of the model's thinking."""

    text: str


@dataclass(slots=True)
class ContentDelta:
    """More of the answer."""

    text: str


@dataclass(slots=True)
class ToolCallStart:
    """A call begins. Indexes count from 0 within one choice."""

    index: int
    id: str
    name: str


@dataclass(slots=True)
class ToolCallArguments:
    """More of the JSON text of a call's arguments."""

    index: int
    text: str


Event: TypeAlias = ReasoningDelta | ContentDelta | ToolCallStart | ToolCallArguments


class OutputParser(Protocol):
    """Turns generated text into events."""

    @property
    def thinking(self) -> bool:
        """Whether the text so far ends inside the model's thinking."""

    @property
    def done(self) -> bool:
        """Whether all that may follow is content, passed through unread."""

    def feed(self, text: str) -> list[Event]:
        """Take the next piece of text and return what it made certain."""

    def finish(self) -> list[Event]:
        """Return what was held back; the text has ended. Nothing may be fed afterwards."""


@dataclass(slots=True)
class ToolCall:
    """A whole call. ``arguments`` is JSON text, cut short if the output was."""

    id: str
    name: str
    arguments: str = ""


@dataclass(slots=True)
class Parsed:
    """All events of one choice, merged."""

    content: str = ""
    reasoning: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)

    def add(self, events: Iterable[Event]) -> None:
        """Merge further events in."""
        for event in events:
            if isinstance(event, ContentDelta):
                self.content += event.text
            elif isinstance(event, ToolCallArguments):
                self.tool_calls[event.index].arguments += event.text
            elif isinstance(event, ToolCallStart):
                self.tool_calls.append(ToolCall(event.id, event.name))
            else:
                self.reasoning += event.text


def collect(parser: OutputParser, text: str) -> Parsed:
    """Parse a whole output at once."""
    parsed = Parsed()
    parsed.add(parser.feed(text))
    parsed.add(parser.finish())
    return parsed


def dump_json(value: Any) -> str:
    """JSON that can be sent: what has no UTF-8 form, as half a surrogate pair, is escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text if sendable(text) else json.dumps(value, allow_nan=False)


def sendable(text: str) -> bool:
    """Whether the text has a UTF-8 form."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def call_id() -> str:
    """A tool call id in OpenAI's shape."""
    return "call_" + secrets.token_hex(12)


_MISTRAL_ALPHABET: Final = string.ascii_letters + string.digits


def mistral_call_id() -> str:
    """A tool call id that Mistral's chat templates accept: nine letters and digits."""
    return "".join(secrets.choice(_MISTRAL_ALPHABET) for _ in range(9))


class CallCounter:
    """Numbers the calls of one choice and names their ids."""

    __slots__ = ("_new_id", "count")

    def __init__(self, new_id: Callable[[], str] = call_id) -> None:
        self._new_id = new_id
        self.count = 0

    def start(self, out: list[Event], name: str) -> int:
        """Append the start of a new call and return its index."""
        index = self.count
        self.count += 1
        out.append(ToolCallStart(index, self._new_id(), name))
        return index


class PlainParser:
    """No format at all: every character is content."""

    thinking = False
    done = True

    def feed(self, text: str) -> list[Event]:
        return [ContentDelta(text)] if text else []

    def finish(self) -> list[Event]:
        return []
