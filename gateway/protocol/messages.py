"""Checks chat messages and brings them into the form that chat templates expect."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.protocol.content_parts import MAX_PARTS, MAX_TEXT, part_schema, read_content
from gateway.protocol.values import (
    Boolean,
    ListOf,
    Mapping,
    OneOf,
    Record,
    Schema,
    Text,
    check_length,
    missing,
    nullable,
    wrong_type,
    wrong_value,
)

MAX_MESSAGES = 2048
MAX_TOOLS = 128
MAX_TOOL_CALLS = 128

ROLES = ("system", "developer", "user", "assistant", "tool")
NAME = Text(64, 1)

Message = dict[str, Any]

TOOL = Record(
    {
        "type": OneOf(("function",)),
        "function": Record(
            {
                "name": NAME,
                "description": Text(16_384),
                "parameters": Mapping(None, 256),
                "strict": Boolean(),
            },
            required=("name",),
        ),
    },
    required=("type", "function"),
)

TOOL_CALL = Record(
    {
        "id": Text(256),
        "type": OneOf(("function",)),
        "function": Record(
            {"name": NAME, "arguments": Text(MAX_TEXT)}, required=("name", "arguments")
        ),
    },
    required=("id", "function"),
)


class Messages:
    """The ``messages`` array: 1 to MAX_MESSAGES messages, content as text or parts."""

    def read(self, value: Any, path: str) -> list[Message]:
        if type(value) is not list:
            wrong_type(path, value, "an array")
        check_length(value, path, 1, MAX_MESSAGES)
        return [read_message(item, f"{path}[{index}]") for index, item in enumerate(value)]

    def schema(self) -> Schema:
        parts = {"type": "array", "items": part_schema(), "maxItems": MAX_PARTS}
        content = {"anyOf": [{"type": "string"}, parts, {"type": "null"}]}
        message = {
            "type": "object",
            "properties": {
                "role": OneOf(ROLES).schema(),
                "content": content,
                "name": nullable(NAME.schema()),
                "tool_calls": nullable(ListOf(TOOL_CALL, MAX_TOOL_CALLS).schema()),
                "tool_call_id": nullable(Text(256).schema()),
                "reasoning": nullable(Text(MAX_TEXT).schema()),
                "reasoning_content": nullable(Text(MAX_TEXT).schema()),
            },
            "required": ["role"],
        }
        return {"type": "array", "items": message, "minItems": 1, "maxItems": MAX_MESSAGES}


def read_message(value: Any, path: str) -> Message:
    """One message. Texts in parts become one string, tool-call arguments become objects."""
    if type(value) is not dict:
        wrong_type(path, value, "an object")
    if value.get("role") is None:
        missing(f"{path}.role")
    role = OneOf(ROLES).read(value["role"], f"{path}.role")
    message: Message = {"role": role}
    calls = value.get("tool_calls")
    if calls is not None:
        if role != "assistant":
            wrong_value(f"{path}.tool_calls", "only assistant messages may have tool calls")
        message["tool_calls"] = read_tool_calls(calls, f"{path}.tool_calls")
    content = value.get("content")
    if content is None:
        if not calls and not (role == "assistant" and value.get("refusal") is not None):
            missing(f"{path}.content")
        content = value.get("refusal") or ""
    message["content"] = read_content(content, f"{path}.content", role)
    call_id = value.get("tool_call_id")
    if call_id is not None:
        call_id = Text(256).read(call_id, f"{path}.tool_call_id")
    if role == "tool":
        if call_id is None:
            missing(f"{path}.tool_call_id")
        message["tool_call_id"] = call_id
    if value.get("name") is not None:
        message["name"] = NAME.read(value["name"], f"{path}.name")
    if value.get("function_call") is not None:
        wrong_value(f"{path}.function_call", "function calls are not supported; use tool_calls")
    if value.get("audio") is not None:
        wrong_value(f"{path}.audio", "this model does not take audio")
    for name in ("reasoning_content", "reasoning"):
        if value.get(name) is not None:
            text = Text(MAX_TEXT).read(value[name], f"{path}.{name}")
            if role == "assistant":
                # Templates know the older name.
                message["reasoning_content"] = text
    return message


def read_tool_calls(value: Any, path: str) -> list[dict[str, Any]]:
    """Earlier tool calls of the assistant, their arguments parsed as templates expect."""
    calls = ListOf(TOOL_CALL, MAX_TOOL_CALLS).read(value, path)
    for index, call in enumerate(calls):
        call.setdefault("type", "function")
        where = f"{path}[{index}].function.arguments"
        text = call["function"]["arguments"]
        try:
            arguments = orjson.loads(text) if text.strip() else {}
        except orjson.JSONDecodeError:
            wrong_value(where, "expected a JSON object in a string")
        if type(arguments) is not dict:
            wrong_value(where, "expected a JSON object in a string")
        call["function"]["arguments"] = arguments
    return calls
