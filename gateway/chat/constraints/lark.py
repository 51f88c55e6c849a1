"""Writing Lark grammars as llguidance reads them.

Markers that are tokens of the vocabulary stand in a grammar as tokens, since that is how a
model writes them. Everywhere else such a token is not allowed, not even inside of a string
that could spell it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from engine.base import StructuredOutput
from gateway.errors import InvalidRequest

TokenId = Callable[[str], int | None]
"""Id of the added token that spells exactly this text, or None."""

_ANCHOR = re.compile(r"(?<!\\)((?:\\\\)*)\$\Z")


@dataclass(frozen=True, slots=True)
class Thinking:
    """How a model marks its reasoning; ``opened`` when the prompt ends inside of it."""

    open: str
    close: str
    opened: bool = False


class GrammarWriter:
    """Collects the rules of one grammar. ``TEXT`` is any text, ``GAP`` a short blank."""

    def __init__(self, token_id: TokenId) -> None:
        self._token_id = token_id
        self._rules = ["TEXT: /(?s:.*)/", "GAP: /[ \\n]{0,4}/"]

    @property
    def text(self) -> str:
        """The grammar so far."""
        return "\n".join(self._rules) + "\n"

    def add(self, rule: str, *parts: str) -> None:
        """A rule that is the sequence of ``parts``; empty ones are left out."""
        body = " ".join(part for part in parts if part)
        self._rules.append(f"{rule}: {body or quote('')}")

    def marker(self, marker: str) -> str:
        """A marker as it stands in a rule; empty for no marker."""
        token = self._token_id(marker) if marker else None
        return literal(marker) if token is None else f"<[{token}]>"

    def add_text_until(self, rule: str, marker: str) -> None:
        """A rule for any text up to and with ``marker``."""
        if self._token_id(marker) is None:
            self.add(f"{rule}[lazy]", "TEXT", quote(marker))
        else:
            self.add(rule, "TEXT", self.marker(marker))

    def add_thinking(self, thinking: Thinking | None) -> None:
        """Rule ``thinking``; it is empty for a model that does not think."""
        if thinking is None:
            self.add("thinking")
            return
        self.add_text_until("thoughts", thinking.close)
        if thinking.opened:
            self.add("thinking", "thoughts", "GAP")
        else:
            self.add("thinking", "(", self.marker(thinking.open), "thoughts", "GAP", ")?")


def quote(text: str) -> str:
    """``text`` as a string literal."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def literal(text: str) -> str:
    """``text`` as a part of a rule: nothing when it is empty."""
    return quote(text) if text else ""


def after_thinking(
    structured: StructuredOutput, thinking: Thinking, token_id: TokenId
) -> StructuredOutput:
    """``structured`` for the answer of a model that may reason before it.

    A grammar of the client's own cannot be embedded: it is returned as it is, which keeps the
    model from reasoning.

    Raises InvalidRequest for such a grammar when the prompt leaves the reasoning open.
    """
    if structured.grammar is not None:
        if thinking.opened:
            raise InvalidRequest(
                "'structured_outputs.grammar' is not supported while the model reasons; turn "
                "reasoning off.",
                param="structured_outputs.grammar",
                code="unsupported_parameter",
            )
        return structured
    writer = GrammarWriter(token_id)
    writer.add_thinking(thinking)
    add_answer(writer, structured)
    writer.add("start", "thinking", "answer")
    return StructuredOutput(grammar=writer.text)


def add_answer(writer: GrammarWriter, structured: StructuredOutput) -> None:
    """Rule ``answer``: what ``structured`` asks for, unless that is a whole grammar."""
    if structured.regex is not None:
        from llguidance import regex_to_lark

        body = _ANCHOR.sub(r"\1", structured.regex.removeprefix("^"))
        writer.add("answer", f"/{regex_to_lark(body, 'dws')}/" if body else "")
    elif structured.choice is not None:
        writer.add("answer", " | ".join(map(quote, structured.choice)))
    else:
        writer.add("answer", "%json", structured.json_schema or '{"type":"object"}')
