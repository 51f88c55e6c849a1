"""Messages of chat completions as hooks see them, and back."""

from __future__ import annotations

import copy

from gateway.hooks.view import ROLES
from gateway.protocol.values import OneOf
from gateway.relay.hooked.conversation import (
    Group,
    Json,
    content_of,
    objects,
    read_arguments,
    spelled_arguments,
    written,
)

TEXTS = frozenset({"text", "refusal"})
REASONS = ("reasoning_content", "reasoning")


def read(document: Json) -> list[Group]:
    """Raises InvalidRequest for what is no message."""
    groups = []
    for index, message in enumerate(objects(document.get("messages"), "messages")):
        OneOf(tuple(sorted(ROLES))).read(message.get("role"), f"messages[{index}].role")
        groups.append(Group([message], [seen(message)]))
    return groups


def seen(message: Json) -> Json:
    """One message; see ``gateway.protocol.messages.read_message``."""
    found = copy.deepcopy(message)
    content = message.get("content")
    if isinstance(content, list):
        found["content"] = content_of(found["content"], TEXTS)
    elif not isinstance(content, str):
        found["content"] = message.get("refusal") or ""
    for name in REASONS:
        if (thought := found.pop(name, None)) is not None:
            found.setdefault(REASONS[0], thought)
    for call in calls_of(found):
        function = call.get("function")
        if isinstance(function, dict):
            function["arguments"] = read_arguments(function.get("arguments"))
    return found


def back(changed: list[Json], group: Group | None) -> list[Json]:
    """Messages as they are sent; a field that is as it was stays as it was written."""
    if group is None or len(changed) != 1:
        return [sent(message, {}, {}) for message in changed]
    return [sent(changed[0], group.chat[0], group.native[0])]


def sent(message: Json, before: Json, native: Json) -> Json:
    """One message."""
    found: Json = {}
    for name, value in message.items():
        named = REASONS[1] if name == REASONS[0] and REASONS[1] in native else name
        if value == before.get(name) and name in before:
            if named in native:
                found[named] = native[named]
        elif name == "content" and isinstance(value, list):
            parts = native.get("content")
            found[name] = written(value, parts if isinstance(parts, list) else [], "text")
        elif name == "tool_calls":
            found[name] = [spelled(call) for call in calls_of(message)]
        else:
            found[named] = value
    return found


def spelled(call: Json) -> Json:
    """An earlier tool call, its arguments as JSON."""
    function = call.get("function")
    if not isinstance(function, dict) or "arguments" not in function:
        return call
    arguments = spelled_arguments(function["arguments"])
    return {**call, "function": {**function, "arguments": arguments}}


def calls_of(message: Json) -> list[Json]:
    """Earlier tool calls."""
    calls = message.get("tool_calls")
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
