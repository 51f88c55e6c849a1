"""Keyword arguments of Python calls, for tools with flat parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from gateway.chat.constraints.lark import GrammarWriter, quote
from gateway.errors import InvalidRequest

# JSON's spelling of these values is also Python's.
_SAME = ("string", "integer", "number")
_LITERALS = {"boolean": '"True" | "False"', "null": '"None"'}


def add_python_arguments(
    writer: GrammarWriter, rule: str, function: str, parameters: Mapping[str, Any]
) -> None:
    """A rule for ``name=value, name=value``: the required ones first, each in schema order.

    Raises InvalidRequest for parameters of other types than strings, numbers, booleans, null
    and enumerations of them.
    """
    properties = parameters.get("properties") or {}
    required = parameters.get("required") or []
    names = [name for name in properties if name in required]
    names += [name for name in properties if name not in required]
    for index, name in enumerate(names):
        if not name.isidentifier():
            _refuse(function, name)
        writer.add(f"{rule}_{index}", quote(f"{name}="), f"({_value(function, name, properties)})")
    # ``rest_i`` follows an argument, ``first_i`` begins the list; both start at argument i.
    writer.add(f"{rule}_rest_{len(names)}")
    writer.add(f"{rule}_first_{len(names)}")
    for index in reversed(range(len(names))):
        item = f"{rule}_{index} {rule}_rest_{index + 1}"
        if names[index] in required:
            writer.add(f"{rule}_rest_{index}", '", "', item)
            writer.add(f"{rule}_first_{index}", item)
        else:
            skipped = f'(", " {rule}_{index})? {rule}_rest_{index + 1}'
            writer.add(f"{rule}_rest_{index}", skipped)
            writer.add(f"{rule}_first_{index}", item, "|", f"{rule}_first_{index + 1}")
    writer.add(rule, f"{rule}_first_0")


def _value(function: str, name: str, properties: Mapping[str, Any]) -> str:
    schema = properties[name]
    if not isinstance(schema, dict):
        _refuse(function, name)
    kinds = schema.get("type")
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " | ".join(quote(_python(value, function, name)) for value in values)
    options = []
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind in _LITERALS:
            options.append(_LITERALS[kind])
        elif kind in _SAME:
            options.append(f"%json {json.dumps({**schema, 'type': kind})}")
        else:
            _refuse(function, name)
    return " | ".join(options)


def _python(value: Any, function: str, name: str) -> str:
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, str | int | float):
        return json.dumps(value, ensure_ascii=False)
    _refuse(function, name)


def _refuse(function: str, name: str) -> NoReturn:
    raise InvalidRequest(
        f"'tool_choice' cannot be enforced for the parameter {name[:64]!r} of {function}: this "
        "model writes calls in Python, where only flat types can be. Use 'auto'.",
        param="tool_choice",
        code="unsupported_parameter",
    )
