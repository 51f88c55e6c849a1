"""Settings of one engine kind only, read from ``EngineConfig.options``."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, TypeVar

from engine.base import EngineStartError

T = TypeVar("T")

_UNIONS = (UnionType, typing.Union)  # ``Literal[...] | None`` is the second kind


def read_options(cls: type[T], options: Mapping[str, Any]) -> T:
    """Build the dataclass ``cls`` from ``options``, checked by name and type.

    Fields may be bool, int, float, str, Literal, or any of these or None. Raises
    EngineStartError that names the option and what it takes.
    """
    types = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    values = {}
    for name, value in options.items():
        if name not in names:
            known = ", ".join(names) or "none"
            raise EngineStartError(f"unknown engine option {name!r}; the options are: {known}")
        if not _fits(value, types[name]):
            raise EngineStartError(
                f"engine option {name} takes {_spelling(types[name])}, not {value!r}"
            )
        values[name] = float(value) if types[name] is float else value
    try:
        return cls(**values)
    except ValueError as error:
        raise EngineStartError(f"engine options: {error}") from None


def _fits(value: Any, kind: Any) -> bool:
    if typing.get_origin(kind) in _UNIONS:
        return any(_fits(value, part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is typing.Literal:
        return value in typing.get_args(kind)
    if kind is float:
        return type(value) in (int, float) and value == value
    return type(value) is kind


def _spelling(kind: Any) -> str:
    if typing.get_origin(kind) in _UNIONS:
        return " or ".join(_spelling(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is typing.Literal:
        return " or ".join(repr(value) for value in typing.get_args(kind))
    return "None" if kind is NoneType else str(kind.__name__)
