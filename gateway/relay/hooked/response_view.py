"""Input of the Responses API as hooks see it, and back.

As where such requests are answered in this process (``gateway.protocol.response_chat``):
instructions are a message, and reasoning, text and calls of one turn are one.
"""

from __future__ import annotations

from typing import Any

from gateway.protocol.content_parts import ImagePart
from gateway.relay.hooked.conversation import (
    Group,
    Json,
    content_of,
    objects,
    read_arguments,
    returned,
    spelled_arguments,
)

TEXTS = frozenset({"input_text", "output_text", "refusal", "summary_text", "reasoning_text"})
ROLES = frozenset({"system", "developer", "user", "assistant"})


def read(document: Json) -> list[Group]:
    """The instructions' group first, which may be empty. Raises InvalidRequest."""
    head = Group([])
    if isinstance(text := document.get("instructions"), str) and text:
        head.chat.append({"role": "system", "content": text})
    groups = [head]
    given = document.get("input")
    if isinstance(given, str):
        return [*groups, Group([], [{"role": "user", "content": given}])]
    for item in objects(given, "input"):
        kind, role = item.get("type") or "message", item.get("role")
        if kind == "message" and role in ROLES and role != "assistant":
            content = content_of(parts_of(item.get("content")), TEXTS)
            groups.append(Group([item], [{"role": role, "content": content}]))
        elif kind == "function_call_output":
            content = content_of(parts_of(item.get("output")), TEXTS)
            result = {"role": "tool", "tool_call_id": item.get("call_id"), "content": content}
            groups.append(Group([item], [result]))
        elif kind in ("function_call", "reasoning") or (kind == "message" and role == "assistant"):
            add_to_assistant(groups, item, kind)
        else:
            # Not known here; shown as it was written, so that hooks can look at it.
            groups.append(Group([item], [{"role": "assistant", "content": [item]}]))
    return groups


def parts_of(content: Any) -> list[Any]:
    """Content as parts."""
    if isinstance(content, str):
        return [{"type": "input_text", "text": content}]
    return content if isinstance(content, list) else []


def add_to_assistant(groups: list[Group], item: Json, kind: str) -> None:
    """Add reasoning, text or a call to the assistant's turn; thinking begins a new one."""
    last = groups[-1]
    turn = last.chat[0] if last.chat and last.native else {}
    is_open = turn.get("role") == "assistant" and isinstance(turn["content"], str)
    said = turn.get("content") or turn.get("tool_calls")
    if kind == "reasoning" or (kind == "message" and said) or not is_open:
        turn = {"role": "assistant", "content": ""}
        last = Group([], [turn])
        groups.append(last)
    last.native.append(item)
    if kind == "reasoning":
        thoughts = item.get("content") or item.get("summary")
        turn["reasoning_content"] = content_of(parts_of(thoughts), TEXTS)
    elif kind == "message":
        turn["content"] = content_of(parts_of(item.get("content")), TEXTS)
    else:
        function = {"name": item.get("name"), "arguments": read_arguments(item.get("arguments"))}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        turn.setdefault("tool_calls", []).append(call)


def back(changed: list[Json], group: Group | None) -> list[Json]:
    """Chat messages as items."""
    return [item for message in changed for item in items_of(message, group)]


def items_of(message: Json, group: Group | None) -> list[Json]:
    """A message as items; of a turn, those that are as they were stay as they were written."""
    role, content = message["role"], message["content"]
    was = group.chat[0] if group is not None else {}
    natives = group.native if group is not None and was["role"] == role else []
    was = was if natives else {}
    if role == "tool":
        kept = natives[0] if natives else {}
        output = content if isinstance(content, str) else input_parts(content, natives)
        call_id = message.get("tool_call_id")
        return [{**kept, "type": "function_call_output", "call_id": call_id, "output": output}]
    if role != "assistant":
        kept = natives[0] if natives else {"type": "message"}
        return [{**kept, "role": role, "content": input_parts(content, natives)}]
    found: list[Json] = []
    thought = message.get("reasoning_content")
    if thought == was.get("reasoning_content"):
        found += [item for item in natives if item.get("type") == "reasoning"]
    elif thought:
        text = {"type": "reasoning_text", "text": thought}
        found.append({"type": "reasoning", "summary": [], "content": [text]})
    if content == was.get("content"):
        found += [item for item in natives if (item.get("type") or "message") == "message"]
    elif isinstance(content, str) and content:
        found.append({"type": "message", "role": "assistant", "content": content})
    elif content:
        found += [part for part in content if isinstance(part, dict)]
    calls = message.get("tool_calls") or []
    if calls == was.get("tool_calls"):
        return found + [item for item in natives if item.get("type") == "function_call"]
    return found + [called(call) for call in calls]


def called(call: Json) -> Json:
    """A call as an item."""
    function = call["function"]
    return {
        "type": "function_call",
        "call_id": call["id"],
        "name": function["name"],
        "arguments": spelled_arguments(function["arguments"]),
    }


def input_parts(content: Any, natives: list[Json]) -> list[Any]:
    """Content of a chat message as parts of input."""
    before = [part for item in natives for part in parts_of(item.get("content"))]
    found: list[Any] = []
    for part in [content] if isinstance(content, str) else content:
        if isinstance(part, str):
            found.append({"type": "input_text", "text": part})
        elif isinstance(part, ImagePart):
            same = (p for p in before if isinstance(p, dict) and p.get("image_url") == part.url)
            fresh = {"type": "input_image", "image_url": part.url, "detail": "auto"}
            found.append(next(same, fresh))
        else:
            found.append(part)
    return found


def fields(document: Json, groups: list[Group], changed: list[Json]) -> Json:
    """The request's fields for the conversation that hooks have made of it; None for one that is
    to go."""
    found: Json = {}
    head = len(groups[0].chat)
    first = changed[:head]
    if head and not (first and first[0]["role"] == "system" and type(first[0]["content"]) is str):
        found["instructions"] = None
        head = 0
    elif head and first != groups[0].chat:
        found["instructions"] = first[0]["content"]
    changed = changed[head:]
    if isinstance(document["input"], str):
        if len(changed) == 1 and changed[0] == {"role": "user", "content": document["input"]}:
            return found
        is_text = len(changed) == 1 and changed[0].get("role") == "user"
        if is_text and isinstance(changed[0]["content"], str):
            return found | {"input": changed[0]["content"]}
        return found | {"input": back(changed, None)}
    return found | {"input": returned(groups[1:], changed, back)}
