"""Content parts of chat messages: texts, and images where the author is not the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.protocol.values import (
    OneOf,
    Record,
    Schema,
    Text,
    check_length,
    missing,
    wrong_type,
    wrong_value,
)

MAX_PARTS = 256
MAX_TEXT = 32 * 1024 * 1024
MAX_LINK = 8192

TEXT_PARTS = {"text": "text", "refusal": "refusal"}
# A tool may have taken a picture.
SEEN_ROLES = frozenset({"user", "tool"})
IMAGE_URL = Record(
    {"url": Text(MAX_TEXT, 1), "detail": OneOf(("auto", "low", "high", "original"))}, ("url",)
)


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image within a message's content.

    Attributes:
        url: ``data:``, ``http:`` or ``https:``.
        path: where the URL stands in the request, for errors.
    """

    url: str
    path: str

    @property
    def is_data(self) -> bool:
        """Whether the URL is the image itself."""
        return self.url[:5].lower() == "data:"


Content = str | list[str | ImagePart]


def part_schema() -> Schema:
    """JSON Schema of a content part."""
    kinds = (*TEXT_PARTS, "image_url")
    image = {"anyOf": [IMAGE_URL.schema(), {"type": "string", "maxLength": MAX_TEXT}]}
    return {
        "type": "object",
        "properties": {
            "type": OneOf(kinds).schema(),
            "text": Text(MAX_TEXT).schema(),
            "refusal": Text(MAX_TEXT).schema(),
            "image_url": image,
        },
        "required": ["type"],
    }


def read_content(value: Any, path: str, role: str) -> Content:
    """Content given as a string or as parts.

    Texts alone become one string, joined by line breaks as in vLLM; beside images they stay
    apart, in order.
    """
    if type(value) is str:
        return value
    if type(value) is not list:
        wrong_type(path, value, "a string or an array of content parts")
    check_length(value, path, 1, MAX_PARTS)
    parts = [read_part(part, f"{path}[{index}]", role) for index, part in enumerate(value)]
    texts = [part for part in parts if type(part) is str]
    return "\n".join(texts) if len(texts) == len(parts) else parts


def read_part(part: Any, path: str, role: str) -> str | ImagePart:
    """One part: a text as a string."""
    if type(part) is str:
        return part
    if type(part) is not dict:
        wrong_type(path, part, "an object")
    kind = part.get("type")
    if kind is None:
        missing(f"{path}.type")
    if kind == "image_url":
        return read_image(part, path, role)
    key = TEXT_PARTS.get(kind) if type(kind) is str else None
    if key is None:
        wrong_value(f"{path}.type", "expected a part of type 'text' or 'image_url'")
    if part.get(key) is None:
        missing(f"{path}.{key}")
    return Text(MAX_TEXT).read(part[key], f"{path}.{key}")


def read_image(part: dict[str, Any], path: str, role: str) -> ImagePart:
    """An image part; ``image_url`` may also be the URL itself, as in vLLM."""
    if role not in SEEN_ROLES:
        wrong_value(f"{path}.type", "images are taken in messages of users and tools only")
    value = part.get("image_url")
    if value is None:
        missing(f"{path}.image_url")
    where = f"{path}.image_url"
    if type(value) is str:
        url = Text(MAX_TEXT, 1).read(value, where)
    else:
        url = IMAGE_URL.read(value, where)["url"]
        where += ".url"
    scheme = url[:8].lower()
    if not scheme.startswith(("data:", "http://", "https://")):
        wrong_value(where, "expected a data: URL in base64, or an http(s) URL")
    if not scheme.startswith("data:") and len(url) > MAX_LINK:
        wrong_value(where, f"expected at most {MAX_LINK} characters, but got {len(url)}")
    return ImagePart(url, where)


def image_parts(messages: Sequence[dict[str, Any]]) -> list[ImagePart]:
    """Every image of a conversation, in the order of the prompt."""
    return [
        part
        for message in messages
        if type(message["content"]) is list
        for part in message["content"]
        if isinstance(part, ImagePart)
    ]
