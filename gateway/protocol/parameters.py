"""A request field as data: what it accepts, what becomes of it, and how it is described.

One table per endpoint drives the parser, the OpenAPI schema and the table in docs/api.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gateway.errors import InvalidRequest
from gateway.protocol.values import Anything, Reader, Schema, missing, nullable

Treatment = Literal["honoured", "ignored", "refused"]


ANYTHING = Anything()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One field of a request body.

    Attributes:
        treatment: ``ignored`` fields may hold anything; ``refused`` ones fail unless they
            hold one of ``harmless``, since ignoring them would change what the caller gets.
        note: one sentence for the documentation and, when refused, for the error.
        harmless: values of a refused field that ask for nothing.
    """

    name: str
    note: str
    reader: Reader = ANYTHING
    treatment: Treatment = "honoured"
    required: bool = False
    harmless: tuple[Any, ...] = ()

    def read(self, value: Any) -> Any:
        """The checked value. Raises InvalidRequest."""
        if self.treatment == "refused":
            if any(value == calm and type(value) is type(calm) for calm in self.harmless):
                return None
            raise InvalidRequest(
                f"'{self.name}' is not supported: {self.note}",
                param=self.name,
                code="unsupported_parameter",
            )
        return self.reader.read(value, self.name)


def refused(name: str, note: str, *harmless: Any) -> Parameter:
    """A field that must not be ignored."""
    return Parameter(name, note, treatment="refused", harmless=harmless)


def ignored(name: str, note: str) -> Parameter:
    """A field that is safe to ignore."""
    return Parameter(name, note, treatment="ignored")


def index(parameters: Iterable[Parameter]) -> dict[str, Parameter]:
    """The table by field name."""
    return {parameter.name: parameter for parameter in parameters}


def read_fields(
    document: Mapping[str, Any], table: Mapping[str, Parameter], *, strict: bool
) -> dict[str, Any]:
    """Check every field that is present; null counts as absent.

    Returns the honoured fields. Unknown fields are ignored, or refused when ``strict``.
    """
    found: dict[str, Any] = {}
    for name, value in document.items():
        parameter = table.get(name)
        if parameter is None:
            if strict:
                raise InvalidRequest(
                    f"Unrecognized request argument: '{name[:64]}'.",
                    param=name[:64],
                    code="unknown_parameter",
                )
            continue
        if value is None or parameter.treatment == "ignored":
            continue
        checked = parameter.read(value)
        if checked is not None:
            found[name] = checked
    for parameter in table.values():
        if parameter.required and parameter.name not in found:
            missing(parameter.name)
    return found


def object_schema(table: Mapping[str, Parameter]) -> Schema:
    """JSON Schema of the body that the table describes."""
    properties: dict[str, Schema] = {}
    for name, parameter in table.items():
        if parameter.treatment == "refused":
            allowed: list[Any] = [None, *parameter.harmless]
            schema: Schema = {"enum": allowed}
        else:
            schema = parameter.reader.schema()
            schema = schema if parameter.required else nullable(schema)
        note = "Accepted and ignored. " if parameter.treatment == "ignored" else ""
        properties[name] = {**schema, "description": note + parameter.note}
    return {
        "type": "object",
        "properties": properties,
        "required": [name for name, parameter in table.items() if parameter.required],
    }
