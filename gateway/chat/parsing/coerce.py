"""Typing argument values that a format writes as bare text.

The rules are vLLM's (``tool_parsers/utils.py``, ``coerce_to_schema_type``): of the types that
the schema allows, the first in a fixed order that the text fits, else the text itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Final

from gateway.chat.parsing.base import dump_json

_ALIASES: Final = {
    **dict.fromkeys(("str", "text", "varchar", "char", "enum"), "string"),
    **dict.fromkeys(
        ("int", "int32", "int64", "uint", "uint32", "uint64", "long", "short", "unsigned"),
        "integer",
    ),
    **dict.fromkeys(("float", "float32", "float64", "double"), "number"),
    "bool": "boolean",
    "dict": "object",
    "list": "array",
}
_OF_VALUE: Final = (
    (bool, "boolean"),
    (int, "integer"),
    (float, "number"),
    (str, "string"),
    (list, "array"),
    (dict, "object"),
    (type(None), "null"),
)
_DEPTH: Final = 8


def schema_types(schema: object, depth: int = _DEPTH) -> frozenset[str]:
    """The JSON types that a property's schema allows; ``string`` where it does not say."""
    types: set[str] = set()
    if isinstance(schema, Mapping) and depth:
        declared = schema.get("type")
        names = declared if isinstance(declared, list) else [declared]
        types.update(_ALIASES.get(n.lower(), n.lower()) for n in names if isinstance(n, str))
        for value in _items(schema.get("enum")):
            types.update(name for kind, name in _OF_VALUE if type(value) is kind)
        for key in ("anyOf", "oneOf", "allOf"):
            for choice in _items(schema.get(key)):
                types |= schema_types(choice, depth - 1)
    return frozenset(types or ("string",))


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def to_json(text: str, types: frozenset[str]) -> str:
    """The text as the JSON of a value of one of ``types``."""
    if "null" in types and text.lower() == "null":
        return "null"
    if "integer" in types:
        try:
            return str(int(text))
        except ValueError:
            pass
    if "number" in types:
        number = _number(text)
        if number is not None:
            return number
    if "boolean" in types and text.lower().strip() in ("true", "1", "false", "0"):
        return "true" if text.lower().strip() in ("true", "1") else "false"
    if "string" in types and not types & {"object", "array"}:
        return dump_json(text)
    return _structure(text) or dump_json(text)


def _number(text: str) -> str | None:
    try:
        value = float(text)
    except ValueError:
        return None
    if not math.isfinite(value):
        return None
    return json.dumps(int(value) if value.is_integer() else value)


def _structure(text: str) -> str | None:
    """``text`` if it is JSON already, on one line."""
    try:
        return dump_json(json.loads(text))
    except (ValueError, RecursionError):
        return None
