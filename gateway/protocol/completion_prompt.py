"""The ``prompt`` of a completion: one or many, as text or as token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.protocol.values import (
    Integer,
    Schema,
    Text,
    check_length,
    wrong_type,
    wrong_value,
)

MAX_PROMPTS = 1024
# A context of a million tokens is about four million characters of English.
MAX_PROMPT_CHARS = 8_000_000
MAX_PROMPT_TOKENS = 10_000_000
MAX_TOKEN_ID = 2**31 - 1

EXPECTED = "a string, an array of strings, an array of token ids, or an array of such arrays"

PromptValue = str | list[int]


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Reads an array of token ids; it may be empty."""

    def read(self, value: Any, path: str) -> list[int]:
        return read_token_ids(value, path, least=0)

    def schema(self) -> Schema:
        token = {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}
        return {"type": "array", "items": token, "maxItems": MAX_PROMPT_TOKENS}


@dataclass(frozen=True, slots=True)
class Prompts:
    """Reads ``prompt`` into a list with one entry per prompt: its text or its token ids."""

    def read(self, value: Any, path: str) -> list[PromptValue]:
        if type(value) is str:
            return [read_text(value, path)]
        if type(value) is not list:
            wrong_type(path, value, EXPECTED)
        if not value:
            wrong_value(path, "it must not be empty")
        if type(value[0]) in (int, float):
            return [read_token_ids(value, path)]
        check_length(value, path, 1, MAX_PROMPTS)
        kind = type(value[0])
        if kind is not str and kind is not list:
            wrong_type(f"{path}[0]", value[0], "a string, a token id, or an array of token ids")
        prompts: list[PromptValue] = []
        for index, entry in enumerate(value):
            where = f"{path}[{index}]"
            if type(entry) is not kind:
                expected = "a string" if kind is str else "an array of token ids"
                wrong_type(where, entry, f"{expected}, as the entries before")
            prompts.append(read_text(entry, where) if kind is str else read_token_ids(entry, where))
        return prompts

    def schema(self) -> Schema:
        text = {"type": "string", "maxLength": MAX_PROMPT_CHARS}
        token = {"type": "integer", "minimum": 0, "maximum": MAX_TOKEN_ID}
        ids = {"type": "array", "items": token, "minItems": 1, "maxItems": MAX_PROMPT_TOKENS}
        bounds = {"minItems": 1, "maxItems": MAX_PROMPTS}
        return {
            "anyOf": [
                text,
                {"type": "array", "items": text, **bounds},
                ids,
                {"type": "array", "items": ids, **bounds},
            ]
        }


def read_text(value: Any, path: str) -> str:
    """One prompt as text."""
    return Text(MAX_PROMPT_CHARS).read(value, path)


def read_token_ids(value: Any, path: str, least: int = 1) -> list[int]:
    """One prompt as token ids. Raises InvalidRequest naming the first id at fault."""
    if type(value) is not list:
        wrong_type(path, value, "an array of token ids")
    check_length(value, path, least, MAX_PROMPT_TOKENS)
    if not value:
        return []
    # A million ids one by one would take a second; the slow way is for naming the culprit.
    if set(map(type, value)) == {int} and min(value) >= 0 and max(value) <= MAX_TOKEN_ID:
        return list(value)
    token = Integer(0, MAX_TOKEN_ID)
    return [token.read(entry, f"{path}[{index}]") for index, entry in enumerate(value)]
