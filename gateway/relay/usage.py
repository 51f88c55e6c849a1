"""Tokens as other servers count them, read from their answers as they pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.control.gate import Used

_MOST = 2**53


@dataclass(slots=True)
class Usage:
    """What the upstream says it used; None where it has not said.

    Attributes:
        cached: of ``prompt``. reasoning: of ``completion``.
    """

    prompt: int | None = None
    completion: int | None = None
    cached: int = 0
    reasoning: int = 0

    def read(self, usage: Any) -> None:
        """Take note of a ``usage`` object of any of the protocols; later ones count."""
        if not isinstance(usage, dict):
            return
        read = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
        made = usage.get("completion_tokens_details") or usage.get("output_tokens_details")
        prompt = count(usage, "prompt_tokens", "input_tokens")
        cached = count(read, "cached_tokens")
        if cached is None and (cached := count(usage, "cache_read_input_tokens")) is not None:
            # Anthropic counts these beside the input, OpenAI within it.
            created = count(usage, "cache_creation_input_tokens") or 0
            prompt = None if prompt is None else prompt + cached + created
        completion = count(usage, "completion_tokens", "output_tokens")
        self.prompt = self.prompt if prompt is None else prompt
        self.completion = self.completion if completion is None else completion
        self.cached = self.cached if cached is None else cached
        self.reasoning = count(made, "reasoning_tokens") or self.reasoning

    def settle(self, used: Used, *, prompt: int, completion: int) -> None:
        """Say what was used; the estimates stand in for what the upstream did not say."""
        used.prompt_tokens = prompt if self.prompt is None else self.prompt
        used.cached_tokens = min(self.cached, used.prompt_tokens)
        used.completion_tokens = completion if self.completion is None else self.completion


def count(values: Any, *names: str) -> int | None:
    """The first of these fields that is a count."""
    if isinstance(values, dict):
        for name in names:
            value = values.get(name)
            if type(value) is int and 0 <= value < _MOST:
                return value
    return None
