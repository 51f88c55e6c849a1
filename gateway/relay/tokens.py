"""The tokens of a stream that is passed on, kept so that another server can carry it on.

Prompt plus generated tokens is the whole state of a generation (see ``engine/carry_on.py``). Text
is not: it does not say which tokens it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# A quote behind a bare comma begins a key; within a string it would be escaped.
_IDS = re.compile(rb',\s*"(?:prompt_)?token_ids"\s*:\s*(?:null|\[[0-9,\s]*\])')

# With nothing but these a prompt of token ids continues a generation exactly: what counts output
# tokens only (presence and frequency penalties), what looks back over text (stop strings,
# grammars, tools) and what draws from a seed would begin anew.
CARRIED = frozenset(
    {"temperature", "top_p", "top_k", "min_p", "repetition_penalty", "logit_bias", "cache_salt"}
)
HARMLESS = CARRIED | {
    "model",
    "messages",
    "prompt",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "user",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "priority",
    "chat_template_kwargs",
    "reasoning_effort",
    "add_generation_prompt",
}


def can_be_carried(document: Mapping[str, Any]) -> bool:
    """Whether another server could continue the answer to this request exactly."""
    further = {name for name, value in document.items() if value is not None} - HARMLESS - {"n"}
    prompt = document.get("prompt")
    several = isinstance(prompt, list) and any(not isinstance(part, int) for part in prompt)
    return not further and document.get("n") in (None, 1) and not several


class TokenRecorder:
    """Takes the token ids out of a stream's events.

    Attributes:
        prompt_ids, output_ids: so far. text: that was passed on.
        first: the first event that held a choice, for the shape of further ones.
        plain: nothing but text has come, so that text can follow it.
        finished: the reason for the answer's end has come.
    """

    def __init__(self) -> None:
        self.prompt_ids: list[int] = []
        self.output_ids: list[int] = []
        self.text = ""
        self.first: dict[str, Any] = {}
        self.plain = True
        self.finished = False

    @property
    def usable(self) -> bool:
        """Whether there is enough to go on from, or nothing to go on with."""
        begun = self.plain and bool(self.prompt_ids and self.output_ids and self.text)
        return begun or self.finished

    def take(self, event: bytes, document: dict[str, Any]) -> bytes:
        """Note what an event holds; returns it without the ids."""
        self.note(document)
        return _IDS.sub(b"", event)

    def note(self, document: dict[str, Any]) -> None:
        """Note what an event holds."""
        choices = document.get("choices")
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            return
        choice = choices[0]
        delta = choice.get("delta") or {}
        self.first = self.first or document
        self.prompt_ids = self.prompt_ids or ids_of(document) or ids_of(choice)
        self.output_ids += ids_of(choice, "token_ids")
        self.text += delta.get("content") or choice.get("text") or ""
        further = {name for name, value in delta.items() if value} - {"role", "content"}
        self.plain = self.plain and not further
        self.finished = self.finished or choice.get("finish_reason") is not None


def ids_of(holder: dict[str, Any], name: str = "prompt_token_ids") -> list[int]:
    """The token ids of a field; empty where they are not there."""
    ids = holder.get(name)
    if not isinstance(ids, list) or not all(type(one) is int and one >= 0 for one in ids):
        return []
    return ids
