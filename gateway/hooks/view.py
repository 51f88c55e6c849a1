"""Checks what hooks have made of a request, so that the fault is theirs and not the engine's."""

from __future__ import annotations

from typing import Any

from gateway.hooks.api import RequestView

ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


def checked(view: RequestView, sizes: tuple[int, int]) -> None:
    """Raises ValueError. ``sizes``: messages and prompts that there were before."""
    had_messages, prompts = sizes
    if had_messages and (not isinstance(view.messages, list) or not view.messages):
        raise ValueError("a chat needs messages")
    if len(view.prompts) != prompts:
        raise ValueError("the number of prompts cannot be changed")
    for message in view.messages:
        if not is_message(message):
            raise ValueError("a message needs a role and a content")
    for prompt in view.prompts:
        if not isinstance(prompt, str) and not is_token_ids(prompt):
            raise ValueError("a prompt is a text or a list of token ids")
    limit = view.max_tokens
    if limit is not None and (type(limit) is not int or limit < 1):
        raise ValueError("max_tokens is a number of tokens or None")


def is_message(value: Any) -> bool:
    """Whether a value has the form of a message."""
    if not isinstance(value, dict) or value.get("role") not in ROLES:
        return False
    return isinstance(value.get("content"), str | list)


def is_token_ids(value: Any) -> bool:
    """Whether a value is a prompt of token ids."""
    return isinstance(value, list) and all(type(token) is int and token >= 0 for token in value)
