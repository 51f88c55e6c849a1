"""Rewrites the texts of one answer, and remembers it for those who want to see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from engine.base import Delta
from gateway.chat.parsing import ContentDelta, Event, ReasoningDelta, ToolCallArguments
from gateway.hooks.api import AnswerView, Channel, TextRewriter

# A text of a choice: its channel and, for arguments, which call's.
Text = tuple[Channel, int]
Chain = Sequence[TextRewriter]
NewChain = Callable[[Channel], Chain]


class HookedAnswer:
    """One per attempt to answer.

    Args:
        chain: the rewriters of a new text; raises what the table of errors knows.
        end: gets the answer at its end; None when nobody wants it.
    """

    def __init__(
        self, choices: int, chain: NewChain, end: Callable[[AnswerView], None] | None
    ) -> None:
        self._chain = chain
        self._end = end
        self._current: list[tuple[Text, Chain] | None] = [None] * choices
        self._said: list[list[str]] = [[] for _ in range(choices)]
        self._reasons: list[str | None] = [None] * choices

    def events(self, index: int, events: list[Event], reason: str | None) -> list[Event]:
        """New events of a chat's choice as the caller may see them; ``reason`` with the last."""
        shown: list[Event] = []
        for event in events:
            text = text_of(event)
            shown += self._flush(index, unless=text)
            shown += self._pass(index, text, event)
        if reason is not None:
            shown += self._flush(index)
            self._reasons[index] = reason
        if self._end is not None:
            self._said[index] += [e.text for e in shown if isinstance(e, ContentDelta)]
        return shown

    def rewrite(self, delta: Delta) -> None:
        """The same for a completion, whose output is all one text."""
        events: list[Event] = [ContentDelta(delta.text)] if delta.text else []
        shown = self.events(delta.index, events, delta.finish_reason)
        delta.text = "".join(e.text for e in shown if isinstance(e, ContentDelta))

    def close(self, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Nothing more comes."""
        if self._end is not None:
            texts = tuple("".join(said) for said in self._said)
            reasons = tuple(self._reasons)
            self._end(AnswerView(texts, reasons, model, prompt_tokens, completion_tokens))

    def _pass(self, index: int, text: Text | None, event: Event) -> list[Event]:
        if text is None or not isinstance(event, ContentDelta | ReasoningDelta | ToolCallArguments):
            return [event]
        current = self._current[index]
        if current is None:
            current = self._current[index] = (text, self._chain(text[0]))
        piece = event.text
        for rewriter in current[1]:
            piece = rewriter.feed(piece)
        return [replace(event, text=piece)] if piece else []

    def _flush(self, index: int, unless: Text | None = None) -> list[Event]:
        """What is held back of the current text, if another one begins."""
        current = self._current[index]
        if current is None or current[0] == unless:
            return []
        self._current[index] = None
        (channel, call), chain = current
        rest = ""
        for rewriter in chain:
            rest = (rewriter.feed(rest) if rest else "") + rewriter.finish()
        if not rest:
            return []
        if channel == "content":
            return [ContentDelta(rest)]
        return [ReasoningDelta(rest) if channel == "reasoning" else ToolCallArguments(call, rest)]


def text_of(event: Event) -> Text | None:
    """The text that an event is a piece of."""
    if isinstance(event, ContentDelta):
        return "content", 0
    if isinstance(event, ReasoningDelta):
        return "reasoning", 0
    if isinstance(event, ToolCallArguments):
        return "arguments", event.index
    return None
