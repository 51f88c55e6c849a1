"""Conversations and texts that a language model's activations are measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.quantization.report import QuantizationError

WANTED = 'each line is "text", {"text": ...}, {"prompt": ...} or {"messages": [...]}'


def calibration_samples(given: Path | None, count: int) -> list[dict[str, Any]]:
    """``{"messages": [...]}`` or ``{"text": ...}`` objects; raises QuantizationError.

    Args:
        given: a ``.jsonl``, or any other file as plain text; None takes built-in conversations.
        count: how many built-in conversations.
    """
    if given is None:
        from engine.models.bundled.samples import plain_conversations

        return [{"messages": found} for found in plain_conversations(count, heldout=False)]
    try:
        text = given.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise QuantizationError(f"there is no {given}: give a text or JSONL file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise QuantizationError(
            f"{given} cannot be read as text ({error}): give a UTF-8 text or JSONL file"
        ) from error
    if given.suffix != ".jsonl":
        if not text.strip():
            raise QuantizationError(f"{given} is empty: give some text of the kind to be served")
        return [{"text": text}]
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise QuantizationError(f"{given} is empty: {WANTED}")
    return [_sample(given, number, line) for number, line in lines]


def _sample(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise QuantizationError(f"{file}, line {number}, is not JSON: {WANTED}") from error
    if isinstance(value, str):
        value = {"text": value}
    if isinstance(value, dict):
        messages = value.get("messages")
        if isinstance(messages, list) and messages and all(map(_is_message, messages)):
            return {"messages": messages}
        text = value.get("text", value.get("prompt"))
        if isinstance(text, str) and text:
            return {"text": text}
    raise QuantizationError(f"{file}, line {number}, holds no text: {WANTED}")


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str)
