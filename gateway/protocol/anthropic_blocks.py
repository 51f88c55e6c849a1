"""Messages of Anthropic's protocol: turns made of content blocks, checked but not translated.

Source of the shapes: ``anthropic.types.MessageParam`` of the official Python SDK.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.errors import InvalidRequest
from gateway.protocol.content_parts import MAX_PARTS, MAX_TEXT
from gateway.protocol.messages import MAX_MESSAGES, NAME
from gateway.protocol.values import (
    Boolean,
    Integer,
    OneOf,
    Reader,
    Record,
    Schema,
    Text,
    check_length,
    missing,
    wrong_type,
)
from gateway.protocol.values import Mapping as MappingOf

MAX_ID = 256
MAX_INPUT_KEYS = 1024
MAX_SIGNATURE = 1024 * 1024


class Block(NamedTuple):
    """One content block. ``path`` is where the caller wrote it; ``fields`` are checked."""

    kind: str
    path: str
    fields: dict[str, Any]


class Turn(NamedTuple):
    """One message: who speaks, where the caller wrote it, and what it consists of."""

    role: str
    path: str
    blocks: list[Block]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Content: a string, which stands for one text block, or an array of blocks.

    Fields of a block that are not in its record (``cache_control``, ``citations``) are
    ignored: prefixes are cached by content, without marks.
    """

    kinds: Mapping[str, Record]

    def read(self, value: Any, path: str) -> list[Block]:
        if type(value) is str:
            Text(MAX_TEXT).read(value, path)
            return [Block("text", path, {"text": value})]
        if type(value) is not list:
            wrong_type(path, value, "a string or an array of content blocks")
        check_length(value, path, 0, MAX_PARTS)
        return [self._read_block(item, f"{path}[{index}]") for index, item in enumerate(value)]

    def _read_block(self, value: Any, path: str) -> Block:
        if type(value) is not dict:
            wrong_type(path, value, "an object")
        kind = value.get("type")
        if kind is None:
            missing(f"{path}.type")
        record = self.kinds.get(kind) if type(kind) is str else None
        if record is None:
            known = ", ".join(f"'{name}'" for name in self.kinds)
            raise InvalidRequest(
                f"'{path}.type' is not supported: this server takes content blocks of type "
                f"{known} here.",
                param=f"{path}.type",
                code="unsupported_parameter",
            )
        return Block(kind, path, record.read(value, path))

    def schema(self) -> Schema:
        blocks = []
        for kind, record in self.kinds.items():
            schema = record.schema()
            schema["properties"] = {"type": {"const": kind}, **schema["properties"]}
            schema["required"] = ["type", *schema.get("required", [])]
            blocks.append(schema)
        items = blocks[0] if len(blocks) == 1 else {"anyOf": blocks}
        array = {"type": "array", "items": items, "maxItems": MAX_PARTS}
        return {"anyOf": [{"type": "string"}, array]}


TEXT = Record({"text": Text(MAX_TEXT)}, ("text",))
IMAGE = Record(
    {
        "source": Record(
            {
                "type": OneOf(("base64", "url")),
                "media_type": OneOf(("image/jpeg", "image/png", "image/gif", "image/webp")),
                "data": Text(MAX_TEXT, 1),
                "url": Text(8192, 1),
            },
            ("type",),
        )
    },
    ("source",),
)
TOOL_RESULT = Record(
    {
        "tool_use_id": Text(MAX_ID, 1),
        "content": Blocks({"text": TEXT, "image": IMAGE}),
        "is_error": Boolean(),
    },
    ("tool_use_id",),
)
TOOL_USE = Record(
    {"id": Text(MAX_ID, 1), "name": NAME, "input": MappingOf(None, MAX_INPUT_KEYS)},
    ("id", "name", "input"),
)
THINKING = Record({"thinking": Text(MAX_TEXT), "signature": Text(MAX_SIGNATURE)}, ("thinking",))
REDACTED_THINKING = Record({"data": Text(MAX_TEXT)}, ("data",))

CONTENT = {
    "user": Blocks({"text": TEXT, "image": IMAGE, "tool_result": TOOL_RESULT}),
    "assistant": Blocks(
        {
            "text": TEXT,
            "tool_use": TOOL_USE,
            "thinking": THINKING,
            "redacted_thinking": REDACTED_THINKING,
        }
    ),
    "system": Blocks({"text": TEXT}),
}
ROLE = OneOf(tuple(CONTENT))


class Turns:
    """The ``messages`` array: 1 to MAX_MESSAGES messages of user, assistant or system."""

    def read(self, value: Any, path: str) -> list[Turn]:
        if type(value) is not list:
            wrong_type(path, value, "an array")
        check_length(value, path, 1, MAX_MESSAGES)
        return [self._read_turn(item, f"{path}[{index}]") for index, item in enumerate(value)]

    def _read_turn(self, value: Any, path: str) -> Turn:
        if type(value) is not dict:
            wrong_type(path, value, "an object")
        for name in ("role", "content"):
            if value.get(name) is None:
                missing(f"{path}.{name}")
        role = ROLE.read(value["role"], f"{path}.role")
        return Turn(role, path, CONTENT[role].read(value["content"], f"{path}.content"))

    def schema(self) -> Schema:
        messages = [
            {
                "type": "object",
                "properties": {"role": {"const": role}, "content": content.schema()},
                "required": ["role", "content"],
            }
            for role, content in CONTENT.items()
        ]
        return {
            "type": "array",
            "items": {"anyOf": messages},
            "minItems": 1,
            "maxItems": MAX_MESSAGES,
        }


CLIENT_TOOL = Record(
    {
        "name": NAME,
        "description": Text(16_384),
        "input_schema": MappingOf(None, 256),
        "strict": Boolean(),
    },
    ("name", "input_schema"),
)


class Tool:
    """A tool that the client runs. Anthropic's own tools need code that is not here."""

    def read(self, value: Any, path: str) -> dict[str, Any]:
        if type(value) is not dict:
            wrong_type(path, value, "an object")
        kind = value.get("type")
        if kind is not None and kind != "custom":
            if type(kind) is not str:
                wrong_type(f"{path}.type", kind, "a string")
            raise InvalidRequest(
                f"'{path}.type' is not supported: this server has no tools of its own; "
                "describe the tool with 'input_schema'.",
                param=f"{path}.type",
                code="unsupported_parameter",
            )
        return CLIENT_TOOL.read(value, path)

    def schema(self) -> Schema:
        schema = CLIENT_TOOL.schema()
        schema["properties"]["type"] = {"enum": ["custom", None]}
        return schema


@dataclass(frozen=True, slots=True)
class Tagged:
    """An object whose ``type`` says which record it follows."""

    kinds: Mapping[str, Record]

    def read(self, value: Any, path: str) -> dict[str, Any]:
        if type(value) is not dict:
            wrong_type(path, value, "an object")
        if value.get("type") is None:
            missing(f"{path}.type")
        kind = OneOf(tuple(self.kinds)).read(value["type"], f"{path}.type")
        return {"type": kind, **self.kinds[kind].read(value, path)}

    def schema(self) -> Schema:
        options = []
        for kind, record in self.kinds.items():
            schema = record.schema()
            schema["properties"] = {"type": {"const": kind}, **schema["properties"]}
            schema["required"] = ["type", *schema.get("required", [])]
            options.append(schema)
        return {"anyOf": options}


def thinking(most_tokens: int) -> Reader:
    """The ``thinking`` field; a budget is 1024 tokens at least, as in Anthropic's API."""
    display = OneOf(("summarized", "omitted"))
    return Tagged(
        {
            "enabled": Record(
                {"budget_tokens": Integer(1024, most_tokens), "display": display},
                ("budget_tokens",),
            ),
            "adaptive": Record({"display": display}),
            "disabled": Record({}),
        }
    )


def tool_choice() -> Reader:
    """The ``tool_choice`` field."""
    single: dict[str, Reader] = {"disable_parallel_tool_use": Boolean()}
    return Tagged(
        {
            "auto": Record(single),
            "any": Record(single),
            "tool": Record({"name": NAME, **single}, ("name",)),
            "none": Record({}),
        }
    )
