"""The texts of one event or answer, rewritten where they stand."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

from gateway.hooks.answer import OTHER, HookedAnswer, Piece, Text

Json = dict[str, Any]


class Texts:
    """Those of one choice. Put them in the order in which they are read.

    Attributes:
        before: what earlier events held back and no text of this one can take: it has to be sent
            before this one.
    """

    def __init__(self, answer: HookedAnswer, index: int) -> None:
        self.before: list[Piece] = []
        self._answer = answer
        self._index = index
        self._places: dict[Text, tuple[Json, str]] = {}

    def put(self, text: Text, holder: Json, name: str) -> None:
        """``holder[name]`` is more of a text; what may be shown of it takes its place, and more
        is added there when the text ends."""
        new = holder[name]
        holder[name] = ""
        self._places[text] = (holder, name)
        self._show(self._answer.feed(self._index, text, new))

    def stop(self, unless: Text | None = None) -> None:
        """The current text ends here if it is not this one."""
        self._show(self._answer.interrupt(self._index, unless))

    def finish(self, reason: str) -> None:
        """The choice ends."""
        self._show(self._answer.finish(self._index, reason))

    def _show(self, pieces: list[Piece]) -> None:
        for text, piece in pieces:
            place = self._places.get(text)
            if place is None:
                self.before.append((text, piece))
            else:
                holder, name = place
                holder[name] += piece


def rewritten(answer: HookedAnswer, index: int, text: Text, whole: str) -> str:
    """A whole text, by itself."""
    holder = {"text": whole}
    texts = Texts(answer, index)
    texts.stop()
    texts.put(text, holder, "text")
    texts.stop()
    return holder["text"]


# Not the model's words, whatever holds them.
NAMES = frozenset(
    {"id", "type", "role", "status", "object", "name", "call_id", "item_id", "tool_use_id", "model"}
)


def rewritten_strings(answer: HookedAnswer, index: int, value: Any) -> Any:
    """A value that the gateway does not know, with each string in it rewritten as content."""
    if isinstance(value, str):
        return rewritten(answer, index, OTHER, value)
    if isinstance(value, list):
        return [rewritten_strings(answer, index, item) for item in value]
    if isinstance(value, dict):
        return {
            name: item if name in NAMES else rewritten_strings(answer, index, item)
            for name, item in value.items()
        }
    return value


def holds_no_text(value: Any) -> bool:
    """Whether nothing of a model's words can be in a value."""
    return value is None or isinstance(value, bool | int | float) or value in ("", [], {})


def without_text(holder: Json, known: Set[str]) -> None:
    """Leave out what may hold text and is not known to be rewritten."""
    for name in [*holder]:
        if name not in known and not holds_no_text(holder[name]):
            del holder[name]
