"""From an engine's deltas to content, reasoning and tool calls, per choice of one request."""

from __future__ import annotations

from dataclasses import dataclass

from engine.base import Delta
from gateway.chat.parsing import (
    ContentDelta,
    Event,
    Formats,
    ReasoningDelta,
    ToolSchemas,
    make_parser,
)


@dataclass(frozen=True, slots=True)
class OutputPlan:
    """How the output of one request is to be read.

    Attributes:
        formats: what the model writes.
        tools: the offered tools by name, or None when calls are not to be read.
        prompt_end: the end of the rendered prompt; it may have opened the thinking.
        parallel: False keeps the first call of each choice only.
        named: the caller named the function to call, so a call is no reason to finish.
        show_reasoning: False drops the reasoning from the answer.
        closing_ids: tokens that end the thinking, where the marker is one token.
    """

    formats: Formats
    tools: ToolSchemas | None = None
    prompt_end: str = ""
    parallel: bool = True
    named: bool = False
    show_reasoning: bool = True
    closing_ids: frozenset[int] = frozenset()

    @property
    def is_plain(self) -> bool:
        """Whether all text is content, so that nothing has to read it."""
        formats = self.formats
        if formats.tool == "openai":  # its channels mark the answer as well
            return False
        return formats.reasoning is None and (formats.tool is None or self.tools is None)


class ChoiceReader:
    """Reads one choice. White space before the thinking and between it and the answer is
    dropped, so that an answer that is held to a format is exactly that.

    Attributes:
        calls: number of calls so far.
        reasoning_tokens: tokens of the output while the model was thinking, markers included.
    """

    __slots__ = (
        "_awaits_content",
        "_awaits_thought",
        "_parser",
        "_plan",
        "calls",
        "reasoning_tokens",
    )

    def __init__(self, plan: OutputPlan) -> None:
        self._plan = plan
        self._parser = make_parser(plan.formats, tools=plan.tools, prompt=plan.prompt_end)
        self._awaits_content = False
        self._awaits_thought = True
        self.calls = 0
        self.reasoning_tokens = 0

    @property
    def done(self) -> bool:
        """Whether all that follows is content and need not be read any more."""
        return self._parser.done and not self._awaits_content

    def read(self, delta: Delta) -> list[Event]:
        """What the delta made certain; with everything that was held back when it is the last."""
        parser = self._parser
        thought = parser.thinking
        events = parser.feed(delta.text)
        if thought or parser.thinking or self._has_reasoning(events):
            self._count(delta.token_ids, thinking=parser.thinking)
        if delta.finish_reason is not None:
            events += parser.finish()
        return [event for event in events if self._wanted(event)] if events else events

    def _count(self, token_ids: list[int], *, thinking: bool) -> None:
        """Add the tokens up to the end of the thinking, if it is among them."""
        count = len(token_ids)
        if not thinking:
            ends = [at for at, token in enumerate(token_ids) if token in self._plan.closing_ids]
            count = ends[0] + 1 if ends else count
        self.reasoning_tokens += count

    def _has_reasoning(self, events: list[Event]) -> bool:
        return any(isinstance(event, ReasoningDelta) for event in events)

    def _wanted(self, event: Event) -> bool:
        if isinstance(event, ContentDelta):
            if self._awaits_content:
                event.text = event.text.lstrip()
                self._awaits_content = not event.text
            return bool(event.text)
        if isinstance(event, ReasoningDelta):
            self._awaits_content = True
            if self._awaits_thought:
                event.text = event.text.lstrip()
                self._awaits_thought = not event.text
            return self._plan.show_reasoning and bool(event.text)
        self.calls = max(self.calls, event.index + 1)
        return self._plan.parallel or event.index == 0
