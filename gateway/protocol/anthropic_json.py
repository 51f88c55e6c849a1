"""Arguments of a tool use as an object, also when the output ended in the middle of them."""

from __future__ import annotations

from typing import Any

import orjson


def whole_object(text: str) -> dict[str, Any]:
    """The JSON object that ``text`` holds or begins; a value that is not complete is left out."""
    for candidate in (text or "{}", *_closed(text)):
        try:
            value = orjson.loads(candidate)
        except orjson.JSONDecodeError:
            continue
        return value if isinstance(value, dict) else {}
    return {}


def _closed(text: str) -> tuple[str, str]:
    """``text`` with its open containers closed, at its end and after its last whole value."""
    closers: list[str] = []
    cut = ""
    in_string = escaped = False
    for position, char in enumerate(text):
        if in_string:
            in_string = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            in_string = True
        elif char in "{[":
            closers.append("}" if char == "{" else "]")
            cut = text[: position + 1] + "".join(reversed(closers))
        elif char in "}]" and closers:
            closers.pop()
            cut = text[: position + 1] + "".join(reversed(closers))
        elif char == ",":
            cut = text[:position] + "".join(reversed(closers))
    return text + "".join(reversed(closers)), cut
