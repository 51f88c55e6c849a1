"""A conversation as hooks see it, and the way back of what they have made of it.

Each protocol's conversation is cut into groups: a message as the client wrote it, with the chat
messages that it is to hooks. What a hook has not touched goes on as it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from gateway.protocol.content_parts import ImagePart
from gateway.protocol.values import wrong_type

Json = dict[str, Any]

# Messages that a hook may add in one place for what follows to go on as it was written.
MOST_NEW = 32


@dataclass(slots=True)
class Group:
    """Consecutive messages or items of the client's, and what they are in a chat."""

    native: list[Json]
    chat: list[Json] = field(default_factory=list)


# Chat messages as messages of a protocol; where they stand for a group, that group.
ToNative = Callable[[list[Json], Group | None], list[Json]]


def returned(groups: Sequence[Group], changed: list[Json], to_native: ToNative) -> list[Json]:
    """The conversation that hooks have made of these groups."""
    found: list[Json] = []
    position = 0
    gone: list[Group] = []
    for group in groups:
        at = place_of(group.chat, changed, position)
        if at is None:
            gone.append(group)
            continue
        found += rewritten(gone, changed[position:at], to_native) + group.native
        position = at + len(group.chat)
        gone = []
    return found + rewritten(gone, changed[position:], to_native)


def place_of(chat: list[Json], changed: list[Json], begin: int) -> int | None:
    """Where messages are found again, not far from where they would be."""
    for at in range(begin, min(begin + MOST_NEW, len(changed) - len(chat)) + 1):
        if changed[at : at + len(chat)] == chat:
            return at
    return None


def rewritten(groups: list[Group], changed: list[Json], to_native: ToNative) -> list[Json]:
    """What has become of groups that are not found again: each its own, if it may be so."""
    if len(changed) != sum(len(group.chat) for group in groups):
        return to_native(changed, None)
    found: list[Json] = []
    for group in groups:
        found += to_native(changed[: len(group.chat)], group)
        changed = changed[len(group.chat) :]
    return found


def objects(value: Any, path: str) -> list[Json]:
    """An array of objects. Raises InvalidRequest."""
    if not isinstance(value, list):
        wrong_type(path, value, "an array")
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            wrong_type(f"{path}[{index}]", item, "an object")
    return value


def content_of(parts: Sequence[Any], texts: frozenset[str]) -> str | list[Any]:
    """Parts as hooks see them: texts alone as one, joined by line breaks as everywhere here;
    beside others each apart; what is neither a text nor an image as it was written."""
    seen = [part_of(part, texts) for part in parts]
    if all(isinstance(part, str) for part in seen):
        return "\n".join(seen)
    return seen


def part_of(part: Any, texts: frozenset[str]) -> Any:
    """One part; ``texts`` are the types of those that are texts."""
    if not isinstance(part, dict) or part.get("type") not in texts:
        return image_of(part) or part
    text = part.get("text", part.get("refusal"))
    return text if isinstance(text, str) else part


def image_of(part: Any) -> ImagePart | None:
    """The image that a part of any protocol is, or None."""
    if not isinstance(part, dict):
        return None
    url = part.get("image_url")
    source = part.get("source")
    if isinstance(url, dict):
        url = url.get("url")
    if part.get("type") == "image" and isinstance(source, dict):
        data, kind = source.get("data"), source.get("media_type")
        url = f"data:{kind};base64,{data}" if data else source.get("url")
    return ImagePart(url, "") if isinstance(url, str) else None


def written(content: Any, before: Sequence[Any], text_type: str) -> list[Any]:
    """Content of a chat message as parts; images are found again among those ``before``."""
    images = {image: part for part in before if (image := image_of(part)) is not None}
    parts = [content] if isinstance(content, str) else content
    found: list[Any] = []
    for part in parts:
        if isinstance(part, str):
            found.append({"type": text_type, "text": part})
        elif isinstance(part, ImagePart):
            fresh = {"type": "image_url", "image_url": {"url": part.url}}
            found.append(images.get(part, fresh))
        else:
            found.append(part)
    return found


def read_arguments(value: Any) -> Any:
    """Arguments of an earlier call: the object that their JSON is, where it is one."""
    if not isinstance(value, str):
        return value
    try:
        read = orjson.loads(value) if value.strip() else {}
    except orjson.JSONDecodeError:
        return value
    return read if isinstance(read, dict) else value


def spelled_arguments(value: Any) -> str:
    """The same as JSON again."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
