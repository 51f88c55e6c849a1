"""Items of the Responses API: what a conversation is made of there.

An item as a client sends it becomes one as it is stored and listed, with an id and in one
spelling, and then part of a chat message.
"""

from __future__ import annotations

import os
from typing import Any

import orjson

from gateway.errors import InvalidRequest
from gateway.protocol.content_parts import MAX_PARTS, MAX_TEXT
from gateway.protocol.messages import NAME
from gateway.protocol.values import (
    ListOf,
    OneOf,
    Record,
    Schema,
    Text,
    check_length,
    missing,
    wrong_type,
    wrong_value,
)

MAX_ITEMS = 2048
ID = Text(128, 1)
LONG = Text(MAX_TEXT)
STATUS = OneOf(("in_progress", "completed", "incomplete"))
ROLES = OneOf(("user", "assistant", "system", "developer"))
DETAIL = OneOf(("low", "high", "auto", "original"))

Item = dict[str, Any]


class ResponseInput:
    """The ``input`` field: a string, or 1 to MAX_ITEMS items."""

    def read(self, value: Any, path: str) -> list[Item]:
        if type(value) is str:
            content = [{"type": "input_text", "text": LONG.read(value, path)}]
            return [new_message("user", content)]
        if type(value) is not list:
            wrong_type(path, value, "a string or an array of items")
        check_length(value, path, 1, MAX_ITEMS)
        return [read_item(item, f"{path}[{index}]") for index, item in enumerate(value)]

    def schema(self) -> Schema:
        item = {
            "type": "object",
            "properties": {
                "type": OneOf((*READERS, "item_reference")).schema(),
                "id": ID.schema(),
                "role": ROLES.schema(),
                "content": {"anyOf": [{"type": "string"}, {"type": "array"}, {"type": "null"}]},
                "call_id": ID.schema(),
                "name": NAME.schema(),
                "arguments": {"type": "string"},
                "output": {"anyOf": [{"type": "string"}, {"type": "array"}]},
                "summary": {"type": "array"},
            },
        }
        items = {"type": "array", "items": item, "minItems": 1, "maxItems": MAX_ITEMS}
        return {"anyOf": [{"type": "string"}, items]}


def read_item(value: Any, path: str) -> Item:
    """One item. Raises InvalidRequest naming the field at fault."""
    if type(value) is not dict:
        wrong_type(path, value, "an object")
    kind = value.get("type")
    if kind is None:
        # OpenAI leaves the type out of plain messages and of references.
        if value.get("role") is not None:
            kind = "message"
        elif value.get("id") is not None:
            kind = "item_reference"
        else:
            missing(f"{path}.type")
    if type(kind) is not str:
        wrong_type(f"{path}.type", kind, "a string")
    if kind == "item_reference":
        if value.get("id") is None:
            missing(f"{path}.id")
        return {"type": kind, "id": ID.read(value["id"], f"{path}.id")}
    reader = READERS.get(kind)
    if reader is None:
        raise InvalidRequest(
            f"Invalid '{path}.type': items of this type are not supported here; expected one of "
            + ", ".join(f"'{name}'" for name in (*READERS, "item_reference"))
            + ".",
            param=f"{path}.type",
        )
    item: Item = reader(value, path)
    if value.get("status") is not None:
        item["status"] = STATUS.read(value["status"], f"{path}.status")
    return item


def read_message(value: Item, path: str) -> Item:
    """A message of any role; content parts in one spelling."""
    if value.get("role") is None:
        missing(f"{path}.role")
    role = ROLES.read(value["role"], f"{path}.role")
    content = value.get("content")
    if content is None:
        missing(f"{path}.content")
    kind = "output_text" if role == "assistant" else "input_text"
    if type(content) is str:
        parts = [{"type": kind, "text": LONG.read(content, f"{path}.content")}]
    elif type(content) is list:
        # An assistant that only called functions may have said nothing.
        check_length(content, f"{path}.content", 0 if role == "assistant" else 1, MAX_PARTS)
        parts = [
            read_part(part, role, f"{path}.content[{index}]") for index, part in enumerate(content)
        ]
    else:
        wrong_type(f"{path}.content", content, "a string or an array of content parts")
    if kind == "output_text":
        parts = [with_annotations(part) for part in parts]
    return new_message(role, parts, read_id(value, path))


def read_part(value: Any, role: str, path: str) -> Item:
    """One part of a message's content."""
    if type(value) is not dict:
        wrong_type(path, value, "an object")
    if value.get("type") is None:
        missing(f"{path}.type")
    taken = (
        ("output_text", "refusal", "input_text")
        if role == "assistant"
        else ("input_text", "input_image")
    )
    kind = OneOf(taken).read(value["type"], f"{path}.type")
    if kind == "input_image":
        return read_image(value, path)
    key = "refusal" if kind == "refusal" else "text"
    if value.get(key) is None:
        missing(f"{path}.{key}")
    text = LONG.read(value[key], f"{path}.{key}")
    if role == "assistant" and kind == "input_text":
        kind = "output_text"
    return {"type": kind, key: text}


def read_image(value: Item, path: str) -> Item:
    """An image by URL or data URL; whether the model takes it is found out later."""
    if value.get("file_id") is not None:
        wrong_value(f"{path}.file_id", "images are taken by 'image_url' only")
    if value.get("image_url") is None:
        missing(f"{path}.image_url")
    return {
        "type": "input_image",
        "image_url": LONG.read(value["image_url"], f"{path}.image_url"),
        "detail": DETAIL.read(value.get("detail") or "auto", f"{path}.detail"),
    }


def with_annotations(part: Item) -> Item:
    """A part of the assistant's as OpenAI lists it: texts carry annotations."""
    return {**part, "annotations": []} if part["type"] == "output_text" else part


CALL = Record(
    {"call_id": ID, "name": NAME, "arguments": LONG}, required=("call_id", "name", "arguments")
)


def read_call(value: Item, path: str) -> Item:
    """A function call that the model made earlier."""
    call = CALL.read(value, path)
    where = f"{path}.arguments"
    try:
        arguments = orjson.loads(call["arguments"]) if call["arguments"].strip() else {}
    except orjson.JSONDecodeError:
        wrong_value(where, "expected a JSON object in a string")
    if type(arguments) is not dict:
        wrong_value(where, "expected a JSON object in a string")
    item_id = read_id(value, path) or new_id("fc")
    return {"id": item_id, "type": "function_call", "status": "completed", **call}


def read_call_output(value: Item, path: str) -> Item:
    """What a function returned, as text or as text parts."""
    if value.get("call_id") is None:
        missing(f"{path}.call_id")
    output = value.get("output")
    if output is None:
        missing(f"{path}.output")
    shown: str | list[Item]
    if type(output) is str:
        shown = LONG.read(output, f"{path}.output")
    elif type(output) is list:
        check_length(output, f"{path}.output", 1, MAX_PARTS)
        shown = [
            OUTPUT_PART.read(part, f"{path}.output[{index}]") for index, part in enumerate(output)
        ]
    else:
        wrong_type(f"{path}.output", output, "a string or an array of text parts")
    return {
        "id": read_id(value, path) or new_id("fco"),
        "type": "function_call_output",
        "status": "completed",
        "call_id": ID.read(value["call_id"], f"{path}.call_id"),
        "output": shown,
    }


OUTPUT_PART = Record({"type": OneOf(("input_text",)), "text": LONG}, required=("type", "text"))
SUMMARY = ListOf(
    Record({"type": OneOf(("summary_text",)), "text": LONG}, required=("type", "text")), MAX_PARTS
)
THOUGHTS = ListOf(
    Record({"type": OneOf(("reasoning_text",)), "text": LONG}, required=("type", "text")), MAX_PARTS
)


def read_reasoning(value: Item, path: str) -> Item:
    """The model's own earlier thinking. What another server encrypted says nothing here."""
    item: Item = {"id": read_id(value, path) or new_id("rs"), "type": "reasoning"}
    item["summary"] = SUMMARY.read(value.get("summary") or [], f"{path}.summary")
    item["content"] = THOUGHTS.read(value.get("content") or [], f"{path}.content")
    return item


READERS = {
    "message": read_message,
    "function_call": read_call,
    "function_call_output": read_call_output,
    "reasoning": read_reasoning,
}


def read_id(value: Item, path: str) -> str | None:
    """The id that the client gave, or None."""
    given = value.get("id")
    return ID.read(given, f"{path}.id") if given is not None else None


def new_message(role: str, content: list[Item], item_id: str | None = None) -> Item:
    """A complete message item."""
    return {
        "id": item_id or new_id("msg"),
        "type": "message",
        "status": "completed",
        "role": role,
        "content": content,
    }


def new_id(prefix: str) -> str:
    """An id in OpenAI's shape: ``prefix_`` and 32 hexadecimal digits."""
    return f"{prefix}_{os.urandom(16).hex()}"
