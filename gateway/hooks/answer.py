"""Rewrites the texts of one answer, and remembers it for those who want to see it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from engine.base import Delta
from gateway.chat.parsing import ContentDelta, Event, ReasoningDelta, ToolCallArguments
from gateway.hooks.api import AnswerView, Channel, TextRewriter

# A text of a choice: its channel, and which one of that channel's, such as a tool call's index.
Text = tuple[Channel, Hashable]
# What may be shown of a text now.
Piece = tuple[Text, str]
Chain = Sequence[TextRewriter]
NewChain = Callable[[Channel], Chain]

CONTENT: Text = ("content", 0)
REASONING: Text = ("reasoning", 0)
# What stands beside the answer proper; rewritten as content.
OTHER: Text = ("content", "other")


class HookedAnswer:
    """One per attempt to answer.

    Args:
        chain: the rewriters of a new text; raises what the table of errors knows.
        end: gets the answer at its end; None when nobody wants it.

    Attributes:
        choices: how many there are.
        rewrites: whether a text may come out otherwise than it went in.
    """

    def __init__(
        self,
        choices: int,
        chain: NewChain,
        end: Callable[[AnswerView], None] | None,
        *,
        rewrites: bool = True,
    ) -> None:
        self.choices = choices
        self.rewrites = rewrites
        self._chain = chain
        self._end = end
        self._current: list[tuple[Text, Chain] | None] = [None] * choices
        self._said: list[list[str]] = [[] for _ in range(choices)]
        self._reasons: list[str | None] = [None] * choices

    @property
    def matters(self) -> bool:
        """Whether anybody rewrites it, or wants to see it afterwards."""
        return self.rewrites or self._end is not None

    def events(self, index: int, events: list[Event], reason: str | None) -> list[Event]:
        """New events of a chat's choice as the caller may see them; ``reason`` with the last."""
        shown: list[Event] = []
        for event in events:
            if isinstance(event, ContentDelta):
                pieces = self.feed(index, CONTENT, event.text)
            elif isinstance(event, ReasoningDelta):
                pieces = self.feed(index, REASONING, event.text)
            elif isinstance(event, ToolCallArguments):
                pieces = self.feed(index, ("arguments", event.index), event.text)
            else:
                shown += map(event_of, self.interrupt(index))
                shown.append(event)
                continue
            shown += map(event_of, pieces)
        if reason is not None:
            shown += map(event_of, self.finish(index, reason))
        return shown

    def rewrite(self, delta: Delta) -> None:
        """The same for a completion, whose output is all one text."""
        pieces = self.feed(delta.index, CONTENT, delta.text) if delta.text else []
        if delta.finish_reason is not None:
            pieces += self.finish(delta.index, delta.finish_reason)
        delta.text = "".join(piece for _, piece in pieces)

    def feed(self, index: int, text: Text, new: str) -> list[Piece]:
        """What may be shown once this much more of a text has come: what was held back of the one
        before it, where it is another, and then its own."""
        shown = self.interrupt(index, unless=text)
        current = self._current[index]
        if current is None:
            current = self._current[index] = (text, self._chain(text[0]))
        for rewriter in current[1]:
            new = rewriter.feed(new)
        return [*shown, self._noted(index, text, new)] if new else shown

    def interrupt(self, index: int, unless: Text | None = None) -> list[Piece]:
        """What is held back of the current text, which ends here if it is not this one."""
        current = self._current[index]
        if current is None or current[0] == unless:
            return []
        self._current[index] = None
        text, chain = current
        rest = ""
        for rewriter in chain:
            rest = (rewriter.feed(rest) if rest else "") + rewriter.finish()
        return [self._noted(index, text, rest)] if rest else []

    def finish(self, index: int, reason: str) -> list[Piece]:
        """The same for a choice that ends, for this reason."""
        self._reasons[index] = reason
        return self.interrupt(index)

    def close(self, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Nothing more comes."""
        if self._end is not None:
            texts = tuple("".join(said) for said in self._said)
            reasons = tuple(self._reasons)
            self._end(AnswerView(texts, reasons, model, prompt_tokens, completion_tokens))

    def _noted(self, index: int, text: Text, piece: str) -> Piece:
        if self._end is not None and text[0] == "content" and text != OTHER:
            self._said[index].append(piece)
        return text, piece


def event_of(piece: Piece) -> Event:
    """What may be shown of a text of a chat's choice."""
    (channel, which), text = piece
    if channel == "content":
        return ContentDelta(text)
    if channel == "reasoning" or not isinstance(which, int):
        return ReasoningDelta(text)
    return ToolCallArguments(which, text)
