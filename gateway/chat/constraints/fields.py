"""Request fields that constrain the output, checked and made into a StructuredOutput."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from engine.base import StructuredOutput
from gateway.protocol.values import OneOf, missing, wrong_type, wrong_value

NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
LENIENT: Final = {"x-guidance": {"lenient": True}}
"""At the root of a schema: skip keywords that cannot be enforced, as without ``strict``."""


def read_response_format(value: Any, path: str = "response_format") -> StructuredOutput | None:
    """The constraint that ``response_format`` asks for; None for plain text.

    Raises InvalidRequest naming the field at fault. Whether a schema can be enforced is
    found by the engine.
    """
    if value is None:
        return None
    fields = read_object(value, path)
    if fields.get("type") is None:
        missing(f"{path}.type")
    kind = OneOf(("text", "json_object", "json_schema")).read(fields["type"], f"{path}.type")
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutput(json_object=True)
    path += ".json_schema"
    if fields.get("json_schema") is None:
        missing(path)
    wrapper = read_object(fields["json_schema"], path)
    if wrapper.get("name") is None:
        missing(f"{path}.name")
    check_name(wrapper["name"], f"{path}.name")
    if wrapper.get("schema") is None:
        missing(f"{path}.schema")
    schema = read_object(wrapper["schema"], f"{path}.schema")
    strict = read_strict(wrapper, path)
    return StructuredOutput(json_schema=schema_text(schema, strict=strict))


def read_structured_outputs(
    value: Any, path: str = "structured_outputs"
) -> StructuredOutput | None:
    """vLLM's ``structured_outputs``: exactly one of json, json_object, regex, choice, grammar."""
    if value is None:
        return None
    fields = {key: entry for key, entry in read_object(value, path).items() if entry is not None}
    kinds = ("json", "json_object", "regex", "choice", "grammar")
    for name, entry in fields.items():
        if name not in kinds and entry is not False:
            wrong_value(f"{path}.{name[:64]}", f"expected one of {', '.join(kinds)}")
    given = [name for name in kinds if fields.get(name, False) is not False]
    if len(given) != 1:
        wrong_value(path, f"exactly one of {', '.join(kinds)} must be set")
    kind, entry = given[0], fields[given[0]]
    path += f".{kind}"
    if kind == "json":
        if type(entry) is str:
            try:
                entry = json.loads(entry)
            except (ValueError, RecursionError):
                wrong_value(path, "the string is not a JSON Schema")
        return StructuredOutput(json_schema=schema_text(read_object(entry, path), strict=True))
    if kind == "json_object":
        if entry is not True:
            wrong_type(path, entry, "a boolean")
        return StructuredOutput(json_object=True)
    if kind == "choice":
        if type(entry) is not list:
            wrong_type(path, entry, "an array")
        for index, choice in enumerate(entry):
            read_text(choice, f"{path}[{index}]")
        if not entry:
            wrong_value(path, "expected at least one choice")
        return StructuredOutput(choice=tuple(entry))
    text = read_text(entry, path)
    return StructuredOutput(regex=text) if kind == "regex" else StructuredOutput(grammar=text)


def schema_text(schema: Mapping[str, Any], *, strict: bool) -> str:
    """``schema`` as the engine takes it. Its own ``x-guidance`` does not count."""
    plain = {key: value for key, value in schema.items() if key != "x-guidance"}
    return json.dumps(plain if strict else plain | LENIENT, separators=(",", ":"))


def check_name(value: Any, path: str) -> str:
    """A name after OpenAI's pattern; raises InvalidRequest."""
    name = read_text(value, path)
    if not NAME.fullmatch(name):
        wrong_value(path, "expected 1 to 64 of a-z, A-Z, 0-9, underscores and dashes")
    return name


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What ``tool_choice`` asks for; ``name`` is set for ``named`` only."""

    mode: Literal["none", "auto", "required", "named"]
    name: str | None = None


def read_tool_choice(value: Any, tools: Sequence[Mapping[str, Any]]) -> ToolChoice:
    """Check ``tool_choice`` against the offered tools (in the shape of chat completions)."""
    path = "tool_choice"
    if value is None:
        return ToolChoice("auto" if tools else "none")
    if type(value) is str:
        mode: Any = OneOf(("none", "auto", "required")).read(value, path)
        if mode != "none" and not tools:
            wrong_value(path, "it is only allowed when 'tools' are given")
        return ToolChoice(mode)
    if type(value) is not dict:
        wrong_type(path, value, "a string or an object")
    OneOf(("function",)).read(value.get("type"), f"{path}.type")
    if value.get("function") is None:
        missing(f"{path}.function")
    function = read_object(value["function"], f"{path}.function")
    if function.get("name") is None:
        missing(f"{path}.function.name")
    name = read_text(function["name"], f"{path}.function.name")
    if all(tool["function"]["name"] != name for tool in tools):
        wrong_value(path, f"the tool {name[:64]!r} is not among 'tools'")
    return ToolChoice("named", name)


def read_strict(fields: Mapping[str, Any], path: str) -> bool:
    """The flag ``strict`` of ``fields``; absent is false."""
    strict = fields.get("strict")
    if strict is not None and type(strict) is not bool:
        wrong_type(f"{path}.strict", strict, "a boolean")
    return strict is True


def read_object(value: Any, path: str) -> dict[str, Any]:
    """A copy of an object; raises InvalidRequest for anything else."""
    if type(value) is not dict:
        wrong_type(path, value, "an object")
    return dict(value)


def read_text(value: Any, path: str) -> str:
    """A string; raises InvalidRequest for anything else."""
    if type(value) is not str:
        wrong_type(path, value, "a string")
    return str(value)
