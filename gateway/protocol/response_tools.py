"""Tools, tool choice and text format of the Responses API, and what they are called in chat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.errors import InvalidRequest
from gateway.protocol.messages import NAME
from gateway.protocol.values import (
    Boolean,
    Mapping,
    OneOf,
    Record,
    Schema,
    Text,
    check_length,
    missing,
    wrong_type,
    wrong_value,
)

Json = dict[str, Any]

FUNCTION = Record(
    {
        "type": OneOf(("function",)),
        "name": NAME,
        "description": Text(16_384),
        "parameters": Mapping(None, 256),
        "strict": Boolean(),
    },
    required=("type", "name"),
)
CHOICES = OneOf(("auto", "none", "required"))
MODES = OneOf(("auto", "required"))
FORMATS = OneOf(("text", "json_object", "json_schema"))
VERBOSITY = OneOf(("low", "medium", "high"))
SCHEMA_FORMAT = Record(
    {
        "type": FORMATS,
        "name": NAME,
        "description": Text(16_384),
        "schema": Mapping(None, 256),
        "strict": Boolean(),
    },
    required=("type", "name", "schema"),
)


@dataclass(frozen=True, slots=True)
class Tools:
    """The ``tools`` array: functions, each as one flat object."""

    most: int

    def read(self, value: Any, path: str) -> list[Json]:
        if type(value) is not list:
            wrong_type(path, value, "an array")
        check_length(value, path, 0, self.most)
        return [read_tool(tool, f"{path}[{index}]") for index, tool in enumerate(value)]

    def schema(self) -> Schema:
        return {"type": "array", "items": FUNCTION.schema(), "maxItems": self.most}


def read_tool(value: Any, path: str) -> Json:
    """One function. Raises InvalidRequest, for hosted tools as for any other fault."""
    if type(value) is not dict:
        wrong_type(path, value, "an object")
    kind = value.get("type")
    if kind is None:
        missing(f"{path}.type")
    if type(kind) is not str:
        wrong_type(f"{path}.type", kind, "a string")
    if kind != "function":
        raise InvalidRequest(
            f"'{path}.type' is not supported: this server runs no hosted tools; only tools of "
            "type 'function' are taken.",
            param=f"{path}.type",
            code="unsupported_parameter",
        )
    if type(value.get("function")) is dict and value.get("name") is None:
        wrong_value(path, "here 'name' and 'parameters' stand beside 'type', not in 'function'")
    return FUNCTION.read(value, path)


class ToolChoice:
    """The ``tool_choice`` field: a mode, one function, or a mode for some of the tools."""

    def read(self, value: Any, path: str) -> str | Json:
        if type(value) is str:
            return CHOICES.read(value, path)
        if type(value) is not dict:
            wrong_type(path, value, "a string or an object")
        kind = value.get("type")
        if kind is None:
            missing(f"{path}.type")
        if kind == "function":
            return NAMED.read(value, path)
        if kind == "allowed_tools":
            return ALLOWED.read(value, path)
        raise InvalidRequest(
            f"'{path}.type' is not supported: expected 'function' or 'allowed_tools'; this "
            "server runs no hosted tools.",
            param=f"{path}.type",
            code="unsupported_parameter",
        )

    def schema(self) -> Schema:
        return {"anyOf": [CHOICES.schema(), NAMED.schema(), ALLOWED.schema()]}


@dataclass(frozen=True, slots=True)
class Names:
    """References to functions by name."""

    most: int

    def read(self, value: Any, path: str) -> list[Json]:
        if type(value) is not list:
            wrong_type(path, value, "an array")
        check_length(value, path, 1, self.most)
        return [NAMED.read(entry, f"{path}[{index}]") for index, entry in enumerate(value)]

    def schema(self) -> Schema:
        items = NAMED.schema()
        return {"type": "array", "items": items, "minItems": 1, "maxItems": self.most}


NAMED = Record({"type": OneOf(("function",)), "name": NAME}, required=("type", "name"))
ALLOWED = Record(
    {"type": OneOf(("allowed_tools",)), "mode": MODES, "tools": Names(128)},
    required=("type", "mode", "tools"),
)


class TextConfig:
    """The ``text`` field: ``format`` and ``verbosity``."""

    def read(self, value: Any, path: str) -> Json:
        if type(value) is not dict:
            wrong_type(path, value, "an object")
        found: Json = {}
        form = value.get("format")
        if form is not None:
            found["format"] = read_format(form, f"{path}.format")
        if value.get("verbosity") is not None:
            found["verbosity"] = VERBOSITY.read(value["verbosity"], f"{path}.verbosity")
        return found

    def schema(self) -> Schema:
        plain = Record({"type": OneOf(("text", "json_object"))}, required=("type",)).schema()
        form = {"anyOf": [plain, SCHEMA_FORMAT.schema(), {"type": "null"}]}
        verbosity = {"anyOf": [VERBOSITY.schema(), {"type": "null"}]}
        return {"type": "object", "properties": {"format": form, "verbosity": verbosity}}


def read_format(value: Any, path: str) -> Json:
    """The form of the text: plain, any JSON object, or what a schema says."""
    if type(value) is not dict:
        wrong_type(path, value, "an object")
    if value.get("type") is None:
        missing(f"{path}.type")
    kind = FORMATS.read(value["type"], f"{path}.type")
    if kind != "json_schema":
        return {"type": kind}
    if type(value.get("json_schema")) is dict and value.get("schema") is None:
        wrong_value(path, "here 'name' and 'schema' stand beside 'type', not in 'json_schema'")
    return SCHEMA_FORMAT.read(value, path)


def chat_format(form: Json) -> Json | None:
    """``text.format`` as chat's ``response_format``; None for plain text."""
    if form["type"] == "json_schema":
        inner = {key: value for key, value in form.items() if key != "type"}
        return {"type": "json_schema", "json_schema": inner}
    return form if form["type"] == "json_object" else None


def chat_tools(tools: list[Json], choice: str | Json | None) -> Json:
    """``tools`` and ``tool_choice`` as chat has them. Raises InvalidRequest."""
    offered = {tool["name"]: tool for tool in tools}
    if len(offered) != len(tools):
        wrong_value("tools", "two functions have the same name")
    wanted: Any = choice
    if type(choice) is dict and choice["type"] == "allowed_tools":
        names = [entry["name"] for entry in choice["tools"]]
        for index, name in enumerate(names):
            if name not in offered:
                wrong_value(f"tool_choice.tools[{index}].name", "no tool has this name")
        offered = {name: offered[name] for name in names}
        wanted = choice["mode"]
    elif type(choice) is dict:
        if choice["name"] not in offered:
            wrong_value("tool_choice.name", "no tool has this name")
        wanted = {"type": "function", "function": {"name": choice["name"]}}
    if not offered:
        if wanted == "required":
            wrong_value("tool_choice", "it is only allowed when 'tools' are given")
        return {}
    found: Json = {"tools": [chat_tool(tool) for tool in offered.values()]}
    if wanted is not None:
        found["tool_choice"] = wanted
    return found


def chat_tool(tool: Json) -> Json:
    """A flat function as chat nests it."""
    inner = {key: value for key, value in tool.items() if key != "type"}
    return {"type": "function", "function": inner}
