"""Splitting the model's thinking from its answer.

Sources: the chat templates of DeepSeek-R1 and Qwen3 (``<think>``), IBM Granite 3.2 (sentences),
and mistral-common for Magistral (``[THINK]``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from gateway.chat.parsing.base import ContentDelta, Event, ReasoningDelta
from gateway.chat.parsing.markers import GAP_LIMIT, MarkerFinder, opens, skip_space


@dataclass(frozen=True, slots=True)
class ThinkFormat:
    """How a family marks its thinking.

    Attributes:
        opens, closes: spellings of the two markers, the usual one first.
        anywhere: thinking may also begin behind text. Where the markers are ordinary text
            it may not: an answer about them would vanish into the reasoning.
    """

    opens: tuple[str, ...]
    closes: tuple[str, ...]
    anywhere: bool = False

    def left_open(self, prompt: str) -> bool:
        """Whether the rendered prompt ends inside thinking, so the output starts there."""
        return prompt.rstrip().endswith(self.opens)


THINK: Final = ThinkFormat(("<think>",), ("</think>",))
MISTRAL: Final = ThinkFormat(("[THINK]",), ("[/THINK]",), anywhere=True)
# Ordinary text to some models, which then mention it while they think about their tools.
_SPOKEN_OF: Final = frozenset(("<tool_call>",))
_CALL_GAP: Final = 8

GRANITE: Final = ThinkFormat(
    ("Here is my thought process:", "Here's my thought process:"),
    ("Here is my response:", "Here's my response:"),
)


class ThinkParser:
    """Reasoning between markers, content behind it.

    Once no more thinking may come ``done`` is true and text passes through unread, so a
    second closing marker is text.
    """

    def __init__(
        self, form: ThinkFormat, *, started: bool = False, calls: tuple[str, ...] = ()
    ) -> None:
        """``started``: the prompt has opened the thinking. ``calls``: markers of tool calls,
        which end it too, since models forget to close it before a call."""
        self._form = form
        self._open = MarkerFinder(*form.opens)
        self._inner = MarkerFinder(*form.opens, *form.closes, *calls)
        self._thinking = started
        self._fresh = True  # only white space so far, in this part
        self._rest = ""
        self.done = False

    @property
    def thinking(self) -> bool:
        """Whether the text so far ends inside the thinking."""
        return self._thinking

    def feed(self, text: str) -> list[Event]:
        if self.done:
            return [ContentDelta(text)] if text else []
        if not (self._fresh or self._rest):
            finder = self._inner if self._thinking else self._open
            if not finder.may_hold(text):
                return [self._delta(text)] if text else []
        return self._run(self._rest + text, False)

    def finish(self) -> list[Event]:
        return self._run(self._rest, True)

    def _delta(self, text: str) -> ReasoningDelta | ContentDelta:
        return ReasoningDelta(text) if self._thinking else ContentDelta(text)

    def _run(self, text: str, final: bool) -> list[Event]:
        out: list[Event] = []
        pos = 0
        waiting = False
        while pos < len(text) and not (waiting or self.done):
            step = self._step if self._thinking or not self._fresh else self._step_start
            pos, waiting = step(text, pos, final, out)
        if pos < len(text) and (final or self.done):
            out.append(self._delta(text[pos:]))
            pos = len(text)
        self._rest = text[pos:]
        return out

    def _step_start(self, text: str, pos: int, final: bool, out: list[Event]) -> tuple[int, bool]:
        """Decide at the start of the output whether the thinking begins there."""
        start = skip_space(text, pos)
        if start - pos <= GAP_LIMIT:
            found = [opens(text, start, marker) for marker in self._form.opens]
            if True in found:
                self._thinking = True
                return start + len(self._form.opens[found.index(True)]), False
            if None in found:
                return pos, True
        self._fresh = False
        self.done = not self._form.anywhere
        return pos, False

    def _step(self, text: str, pos: int, final: bool, out: list[Event]) -> tuple[int, bool]:
        """Read on to the next marker: how far, and whether more text is needed."""
        finder = self._inner if self._thinking else self._open
        hit = finder.search(text, pos)
        stop = hit.start() if hit else len(text) if final else finder.tail(text, pos)
        if stop > pos:
            out.append(self._delta(text[pos:stop]))
            self._fresh = self._fresh and text[pos:stop].isspace()
        if hit is None:
            return stop, True
        marker = hit.group()
        if marker in self._form.closes:
            self._thinking = False
            self._fresh = False
            self.done = not self._form.anywhere
        elif marker in self._form.opens:
            if self._thinking and not self._fresh:
                out.append(ReasoningDelta(marker))
            elif not self._thinking:
                self._thinking = self._fresh = True
        else:
            return self._step_call(text, hit, final, out)
        return hit.end(), False

    def _step_call(
        self, text: str, hit: re.Match[str], final: bool, out: list[Event]
    ) -> tuple[int, bool]:
        """A marker of a call: it is only spoken of unless a call follows."""
        if hit.group() in _SPOKEN_OF:
            start = skip_space(text, hit.end(), hit.end() + _CALL_GAP)
            if start == len(text) and not final:
                return hit.start(), True
            if text[start : start + 1] not in tuple("{[<"):
                out.append(ReasoningDelta(hit.group()))
                self._fresh = False
                return hit.end(), False
        self._thinking = False
        self.done = True
        return hit.start(), False
