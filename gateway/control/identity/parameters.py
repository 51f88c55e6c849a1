"""What is said of a key when it is made or changed: fields, bounds and their JSON Schema.

The admin API and the command line read the same tables. Unknown fields are refused always: a
misspelt right that were ignored would leave a key with more than was meant.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any

from gateway.control.identity.bounds import LIMIT_NAMES, MOST_WEIGHT
from gateway.control.rights import CLASSES, SCOPES
from gateway.errors import InvalidRequest
from gateway.protocol.values import (
    Boolean,
    Integer,
    ListOf,
    Number,
    OneOf,
    Reader,
    Schema,
    Text,
    nullable,
    wrong_type,
    wrong_value,
)

# Groups of routes that a key may be limited to; see access.py.
ENDPOINTS = (
    "chat",
    "completions",
    "responses",
    "messages",
    "embeddings",
    "tokens",
    "files",
    "batches",
    "predict",
    "models",
    "metrics",
)
MOST_NAMES = 1000
MOST_SOURCES = 64
MOST_COUNT = 10**15
LATEST = 253_402_300_799  # the last second of the year 9999
YEAR_S = 366 * 86_400
MOST_GRACE_S = 90 * 86_400
DEFAULT_GRACE_S = 86_400

_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Slug:
    """A name of 1 to 64 letters, digits, dots, dashes and underscores."""

    def read(self, value: Any, path: str) -> str:
        if type(value) is not str:
            wrong_type(path, value, "a string")
        if _SLUG.fullmatch(value) is None:
            wrong_value(
                path,
                "expected 1 to 64 letters, digits, '.', '-' and '_', beginning with a letter "
                "or a digit",
            )
        return str(value)

    def schema(self) -> Schema:
        return {"type": "string", "pattern": f"^{_SLUG.pattern}$"}


@dataclass(frozen=True, slots=True)
class Network:
    """An IP network or address, such as ``10.0.0.0/8``; its text in the usual form."""

    def read(self, value: Any, path: str) -> str:
        if type(value) is not str:
            wrong_type(path, value, "a string")
        try:
            return str(ip_network(value))
        except ValueError:
            wrong_value(path, "expected an address or a network such as '10.0.0.0/8'")

    def schema(self) -> Schema:
        return {"type": "string", "maxLength": 64}


@dataclass(frozen=True, slots=True)
class OrNull:
    """A value for which null has a meaning of its own."""

    item: Reader

    def read(self, value: Any, path: str) -> Any:
        return None if value is None else self.item.read(value, path)

    def schema(self) -> Schema:
        return nullable(self.item.schema())


@dataclass(frozen=True, slots=True)
class Fields:
    """An object that has no other fields than these; read are those that are present."""

    fields: dict[str, Reader]

    def read(self, value: Any, path: str) -> dict[str, Any]:
        if type(value) is not dict:
            wrong_type(path, value, "an object")
        inner = f"{path}." if path else ""
        for name in value:
            if name not in self.fields:
                raise InvalidRequest(
                    f"Unknown field '{inner}{name[:64]}'.",
                    param=f"{inner}{name[:64]}",
                    code="unknown_parameter",
                )
        return {
            name: self.fields[name].read(item, f"{inner}{name}") for name, item in value.items()
        }

    def schema(self) -> Schema:
        properties = {name: reader.schema() for name, reader in self.fields.items()}
        return {"type": "object", "properties": properties, "additionalProperties": False}


def limit_reader(name: str) -> Reader:
    """How one limit is read; null is none."""
    if name.startswith("usd_"):
        return OrNull(Number(0, 10**12))
    return OrNull(Integer(0, MOST_COUNT))


LIMITS = Fields({name: limit_reader(name) for name in LIMIT_NAMES})
RIGHTS = Fields(
    {
        "models": OrNull(ListOf(Text(256, 1), MOST_NAMES)),
        "endpoints": OrNull(ListOf(OneOf(ENDPOINTS), len(ENDPOINTS))),
        "highest_class": OneOf(CLASSES),
        "limits": LIMITS,
        "sources": ListOf(Network(), MOST_SOURCES),
        "admin": Boolean(),
        "manages": OneOf(SCOPES),
        "weight": Number(0, MOST_WEIGHT, above=True),
    }
)
NAME = Text(128)
CREATE = Fields(
    {
        "name": NAME,
        "organisation": Slug(),
        "project": Slug(),
        "expires_at": OrNull(Integer(0, LATEST)),
        "expires_in_s": Integer(1, 100 * YEAR_S),
        "rights": RIGHTS,
    }
)
UPDATE = Fields(
    {name: CREATE.fields[name] for name in ("name", "expires_at", "expires_in_s", "rights")}
)
ROTATE = Fields({"grace_s": Integer(0, MOST_GRACE_S)})
REVOKE = Fields({})
