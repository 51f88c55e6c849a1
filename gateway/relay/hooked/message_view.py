"""Anthropic's messages as hooks see them, and back.

As where such messages are answered in this process (``gateway.protocol.anthropic_chat``): the
system's text is a message, results of tools are messages of their own, before what else a user
says.
"""

from __future__ import annotations

from typing import Any

from gateway.protocol.content_parts import ImagePart
from gateway.protocol.values import OneOf
from gateway.relay.hooked.conversation import (
    Group,
    Json,
    content_of,
    objects,
    read_arguments,
    returned,
    written,
)

TEXTS = frozenset({"text"})
THOUGHTS = frozenset({"thinking", "redacted_thinking"})
ROLES = OneOf(("user", "assistant", "system"))


def read(document: Json) -> list[Group]:
    """The system's group first, which may be empty. Raises InvalidRequest."""
    system = document.get("system")
    head = Group([])
    if system:
        content = content_of(blocks_of(system), TEXTS)
        head.chat.append({"role": "system", "content": content})
    groups = [head]
    for index, message in enumerate(objects(document.get("messages"), "messages")):
        role = ROLES.read(message.get("role"), f"messages[{index}].role")
        blocks = blocks_of(message.get("content"))
        chat = [spoken(blocks)] if role == "assistant" else asked(role, blocks)
        groups.append(Group([message], chat))
    return groups


def blocks_of(content: Any) -> list[Any]:
    """Content as blocks."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return content if isinstance(content, list) else []


def kind_of(block: Any) -> Any:
    """What kind of block it is."""
    return block.get("type") if isinstance(block, dict) else None


def spoken(blocks: list[Any]) -> Json:
    """What the assistant has said."""
    own = [b for b in blocks if kind_of(b) not in THOUGHTS and kind_of(b) != "tool_use"]
    message: Json = {"role": "assistant", "content": content_of(own, TEXTS)}
    thoughts = [b.get("thinking") for b in blocks if kind_of(b) == "thinking"]
    if any(thoughts):
        message["reasoning_content"] = "\n".join(str(thought) for thought in thoughts)
    calls = [
        {
            "id": block.get("id"),
            "type": "function",
            "function": {"name": block.get("name"), "arguments": block.get("input")},
        }
        for block in blocks
        if kind_of(block) == "tool_use"
    ]
    return message | {"tool_calls": calls} if calls else message


def asked(role: str, blocks: list[Any]) -> list[Json]:
    """What tools have given, and what a user or the system says."""
    chat: list[Json] = []
    for block in blocks:
        if kind_of(block) == "tool_result":
            content = content_of(blocks_of(block.get("content")), TEXTS)
            result = {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}
            chat.append(result)
    rest = [block for block in blocks if kind_of(block) != "tool_result"]
    if rest or not chat:
        chat.append({"role": role, "content": content_of(rest, TEXTS)})
    return chat


def back(changed: list[Json], group: Group | None) -> list[Json]:
    """Chat messages as Anthropic's; a user's goes with the results before it."""
    natives = group.native if group is not None else []
    blocks = [b for native in natives for b in blocks_of(native.get("content"))]
    before = group.chat if group is not None else []
    found: list[Json] = []
    for position, message in enumerate(changed):
        was = before[position] if position < len(before) else {}
        role = message["role"]
        if role == "assistant":
            found.append({"role": role, "content": said(message, was, blocks)})
            continue
        content = told(message, was, blocks)
        role = "system" if role in ("system", "developer") else "user"
        if found and role == "user" == found[-1]["role"] and was_result(changed[position - 1]):
            found[-1]["content"] += content
        else:
            found.append({"role": role, "content": content})
    return found


def was_result(message: Json) -> bool:
    """Whether what a tool has given comes before the rest."""
    return bool(message["role"] == "tool")


def said(message: Json, was: Json, blocks: list[Any]) -> list[Any]:
    """Blocks of the assistant's; what is as it was stays as it was written."""
    found: list[Any] = []
    thought = message.get("reasoning_content")
    if thought == was.get("reasoning_content"):
        found += [block for block in blocks if kind_of(block) in THOUGHTS]
    elif thought:
        found.append({"type": "thinking", "thinking": thought, "signature": ""})
    if message["content"] == was.get("content"):
        own = [b for b in blocks if kind_of(b) not in THOUGHTS and kind_of(b) != "tool_use"]
        found += own
    elif message["content"]:
        found += images_as_sources(written(message["content"], blocks, "text"))
    calls = message.get("tool_calls") or []
    if calls == was.get("tool_calls"):
        return found + [block for block in blocks if kind_of(block) == "tool_use"]
    for call in calls:
        function = call["function"]
        given = read_arguments(function["arguments"])
        use = {"type": "tool_use", "id": call["id"], "name": function["name"], "input": given}
        found.append(use)
    return found


def told(message: Json, was: Json, blocks: list[Any]) -> list[Any]:
    """Blocks of anybody else's."""
    use_id = message.get("tool_call_id")
    results = [b for b in blocks if kind_of(b) == "tool_result" and b.get("tool_use_id") == use_id]
    same = message == was
    if message["role"] == "tool":
        if same and results:
            return results
        held = blocks_of(results[0].get("content")) if results else []
        content = images_as_sources(written(message["content"], held, "text"))
        given = {k: v for block in results[:1] for k, v in block.items()}
        return [given | {"type": "tool_result", "tool_use_id": use_id, "content": content}]
    rest = [block for block in blocks if kind_of(block) != "tool_result"]
    return rest if same else images_as_sources(written(message["content"], rest, "text"))


def images_as_sources(parts: list[Any]) -> list[Any]:
    """Image parts of chat completions as Anthropic writes them."""
    return [
        {"type": "image", "source": source_of(part["image_url"])}
        if isinstance(part, dict) and part.get("type") == "image_url"
        else part
        for part in parts
    ]


def source_of(image: Any) -> Json:
    """Where an image is."""
    url = image.get("url", "") if isinstance(image, dict) else str(image)
    if isinstance(url, ImagePart) or not url.startswith("data:"):
        return {"type": "url", "url": url}
    kind, _, data = url.removeprefix("data:").partition(";base64,")
    return {"type": "base64", "media_type": kind, "data": data}


def fields(groups: list[Group], changed: list[Json]) -> Json:
    """The request's fields for the conversation that hooks have made of it; None for one that is
    to go."""
    head = 0
    while head < len(changed) and changed[head]["role"] in ("system", "developer"):
        head += 1
    found: Json = {}
    if changed[:head] != groups[0].chat:
        texts = [written(message["content"], [], "text") for message in changed[:head]]
        found["system"] = [part for parts in texts for part in parts] or None
    found["messages"] = returned(groups[1:], changed[head:], back)
    return found
