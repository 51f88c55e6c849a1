"""Kinds of request values: how each is checked, and its JSON Schema.

A reader takes a decoded JSON value and the path of the field (``messages[2].content``)
and returns the typed value or raises InvalidRequest naming that path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from gateway.errors import InvalidRequest

Schema = dict[str, Any]

TYPE_NAMES: dict[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "an integer",
    float: "a decimal number",
    str: "a string",
    list: "an array",
    dict: "an object",
}


def wrong_type(path: str, value: Any, expected: str) -> NoReturn:
    """Raise the error for a value of the wrong JSON type."""
    got = TYPE_NAMES.get(type(value), "something else")
    raise InvalidRequest(
        f"Invalid type for '{path}': expected {expected}, but got {got} instead.",
        param=path,
        code="invalid_type",
    )


def wrong_value(path: str, why: str) -> NoReturn:
    """Raise the error for a value that is of the right type but not acceptable."""
    raise InvalidRequest(f"Invalid '{path}': {why}.", param=path)


def missing(path: str) -> NoReturn:
    """Raise the error for an absent required field."""
    raise InvalidRequest(
        f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter"
    )


class Reader(Protocol):
    """Checks one kind of value."""

    def read(self, value: Any, path: str) -> Any:
        """The typed value; raises InvalidRequest."""

    def schema(self) -> Schema:
        """JSON Schema of what ``read`` accepts."""


@dataclass(frozen=True, slots=True)
class Boolean:
    """``true`` or ``false``; no number stands for either."""

    def read(self, value: Any, path: str) -> bool:
        if value is True or value is False:
            return bool(value)
        wrong_type(path, value, "a boolean")

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer in a closed range. ``5.0`` is one, as in JSON Schema; ``true`` is not."""

    low: int
    high: int

    def read(self, value: Any, path: str) -> int:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int:
            wrong_type(path, value, "an integer")
        if value < self.low:
            wrong_value(path, f"expected a value >= {self.low}, but got {shown(value)}")
        if value > self.high:
            wrong_value(path, f"expected a value <= {self.high}, but got {shown(value)}")
        return int(value)

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number in a range; ``above`` makes the lower end exclusive."""

    low: float
    high: float
    above: bool = False

    def read(self, value: Any, path: str) -> float:
        if type(value) is not float and type(value) is not int:
            wrong_type(path, value, "a number")
        if value < self.low or (self.above and value == self.low):
            sign = ">" if self.above else ">="
            wrong_value(path, f"expected a value {sign} {self.low:g}, but got {shown(value)}")
        if value > self.high:
            wrong_value(path, f"expected a value <= {self.high:g}, but got {shown(value)}")
        return float(value)

    def schema(self) -> Schema:
        lower = "exclusiveMinimum" if self.above else "minimum"
        return {"type": "number", lower: self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Text:
    """A string of bounded length."""

    longest: int
    shortest: int = 0

    def read(self, value: Any, path: str) -> str:
        if type(value) is not str:
            wrong_type(path, value, "a string")
        if not self.shortest <= len(value) <= self.longest:
            wrong_value(
                path,
                f"expected {self.shortest} to {self.longest} characters, but got {len(value)}",
            )
        return str(value)

    def schema(self) -> Schema:
        bounds = {"minLength": self.shortest} if self.shortest else {}
        return {"type": "string", "maxLength": self.longest, **bounds}


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few strings."""

    names: tuple[str, ...]

    def read(self, value: Any, path: str) -> str:
        if type(value) is not str:
            wrong_type(path, value, "a string")
        if value not in self.names:
            known = ", ".join(f"'{name}'" for name in self.names)
            wrong_value(path, f"expected one of {known}")
        return str(value)

    def schema(self) -> Schema:
        return {"type": "string", "enum": list(self.names)}


@dataclass(frozen=True, slots=True)
class ListOf:
    """An array of bounded length, every item of one kind."""

    item: Reader
    most: int
    least: int = 0

    def read(self, value: Any, path: str) -> list[Any]:
        if type(value) is not list:
            wrong_type(path, value, "an array")
        check_length(value, path, self.least, self.most)
        return [self.item.read(entry, f"{path}[{index}]") for index, entry in enumerate(value)]

    def schema(self) -> Schema:
        bounds = {"minItems": self.least} if self.least else {}
        return {"type": "array", "items": self.item.schema(), "maxItems": self.most, **bounds}


@dataclass(frozen=True, slots=True)
class OneOrMany:
    """A single value or an array of them; always read as a list."""

    item: Reader
    most: int

    def read(self, value: Any, path: str) -> list[Any]:
        if type(value) is list:
            return ListOf(self.item, self.most).read(value, path)
        return [self.item.read(value, path)]

    def schema(self) -> Schema:
        many = ListOf(self.item, self.most).schema()
        return {"anyOf": [self.item.schema(), many]}


@dataclass(frozen=True, slots=True)
class Mapping:
    """An object with free keys of bounded number and length."""

    value: Reader | None
    most: int
    longest_key: int = 256

    def read(self, value: Any, path: str) -> dict[str, Any]:
        if type(value) is not dict:
            wrong_type(path, value, "an object")
        if len(value) > self.most:
            wrong_value(path, f"expected at most {self.most} entries, but got {len(value)}")
        for key in value:
            if len(key) > self.longest_key:
                wrong_value(path, f"keys may have at most {self.longest_key} characters")
        if self.value is None:
            return dict(value)
        return {key: self.value.read(entry, f"{path}.{key}") for key, entry in value.items()}

    def schema(self) -> Schema:
        entries = {"additionalProperties": self.value.schema()} if self.value else {}
        return {"type": "object", "maxProperties": self.most, **entries}


@dataclass(frozen=True, slots=True)
class Record:
    """An object with named fields; fields not named here are ignored."""

    fields: dict[str, Reader]
    required: tuple[str, ...] = ()

    def read(self, value: Any, path: str) -> dict[str, Any]:
        if type(value) is not dict:
            wrong_type(path, value, "an object")
        for name in self.required:
            if value.get(name) is None:
                missing(f"{path}.{name}")
        return {
            name: reader.read(value[name], f"{path}.{name}")
            for name, reader in self.fields.items()
            if value.get(name) is not None
        }

    def schema(self) -> Schema:
        properties = {name: nullable(reader.schema()) for name, reader in self.fields.items()}
        for name in self.required:
            properties[name] = self.fields[name].schema()
        needed = {"required": list(self.required)} if self.required else {}
        return {"type": "object", "properties": properties, **needed}


@dataclass(frozen=True, slots=True)
class Anything:
    """Any value at all, for fields that are accepted and ignored."""

    def read(self, value: Any, path: str) -> Any:
        return value

    def schema(self) -> Schema:
        return {}


def nullable(schema: Schema) -> Schema:
    """The schema with null allowed: null stands for absent in optional fields."""
    return {"anyOf": [schema, {"type": "null"}]} if schema else schema


def check_length(items: Sequence[Any], path: str, least: int, most: int) -> None:
    """Raise unless the number of items is within bounds."""
    if not least <= len(items) <= most:
        bounds = f"{least} to {most}" if least else f"at most {most}"
        wrong_value(path, f"expected {bounds} items, but got {len(items)}")


def shown(number: float) -> str:
    """A number short enough for a message."""
    text = repr(number)
    return text if len(text) <= 24 else f"{float(number):.6g}"
