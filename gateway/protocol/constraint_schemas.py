"""What the fields that constrain an answer look like, for the OpenAPI document.

``gateway.chat.constraints.fields`` reads them, since what they mean depends on each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.protocol.values import Schema

_OBJECT: Schema = {"type": "object"}
_TEXT: Schema = {"type": "string"}
_TEXTS: Schema = {"type": "array", "items": _TEXT, "minItems": 1}
_NAME: Schema = {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}
_FLAG: Schema = {"anyOf": [{"type": "boolean"}, {"type": "null"}]}
_SCHEMA: Schema = {"anyOf": [_OBJECT, _TEXT]}


@dataclass(frozen=True, slots=True)
class Described:
    """Any value; what it has to look like is checked where its meaning is known."""

    shape: Schema

    def read(self, value: Any, path: str) -> Any:
        return value

    def schema(self) -> Schema:
        return self.shape


def _record(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _format(kind: str, **properties: Schema) -> Schema:
    return _record(type={"const": kind}, **properties)


_NAMED_SCHEMA: Schema = {
    "type": "object",
    "properties": {"name": _NAME, "schema": _OBJECT, "strict": _FLAG},
    "required": ["name", "schema"],
}
TOOL_CHOICE = Described(
    {
        "anyOf": [
            {"enum": ["none", "auto", "required"]},
            _format("function", function=_record(name=_TEXT)),
        ]
    }
)
RESPONSE_FORMAT = Described(
    {
        "anyOf": [
            _format("text"),
            _format("json_object"),
            _format("json_schema", json_schema=_NAMED_SCHEMA),
        ]
    }
)
STRUCTURED_OUTPUTS = Described(
    {
        "anyOf": [
            _record(json=_SCHEMA),
            _record(json_object={"const": True}),
            _record(regex=_TEXT),
            _record(choice=_TEXTS),
            _record(grammar=_TEXT),
        ]
    }
)
GUIDED_JSON = Described(_SCHEMA)
GUIDED_TEXT = Described(_TEXT)
GUIDED_CHOICE = Described(_TEXTS)
