"""The configuration as names and values, and how they are shown without their secrets."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import SecretStr

from gateway.control.prices import PriceTable
from gateway.routing.config import RoutingConfig
from gateway.settings import Settings

Flat = dict[str, Any]

MASK = "**********"
# In objects whose fields this gateway does not know, such as ENGINE_ARGS.
_SECRET_FIELD = re.compile(
    r"(^|[_-])(api[_-]?key|token|secret|password|passwd|credentials?|authorization)$", re.IGNORECASE
)
_USER_OF_URL = re.compile(r"(://)[^/@\s]+@")
# Names are part of the path, and aliases a field of the model.
_LEFT_OUT = frozenset({"name", "served_names"})


def flat_settings(settings: Settings) -> Flat:
    """Every setting under the name that the environment has for it."""
    found: Flat = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name == "limits" and value:
            found.update(leaves(value, "LIMITS"))
        else:
            found[name.upper()] = value
    return found


def flat_routing(routing: RoutingConfig) -> Flat:
    """``models`` in their order, and every field of each below its name."""
    found: Flat = {"models": [model.name for model in routing.models]}
    for model in routing.models:
        found.update((path, value) for path, value, _ in fields_of(model, f"models.{model.name}"))
    return found


def routing_defaults(routing: RoutingConfig) -> set[str]:
    """Names of the values that are as they would be if the file did not say so."""
    return {
        path
        for model in routing.models
        for path, _, is_default in fields_of(model, f"models.{model.name}")
        if is_default
    }


def flat_prices(prices: PriceTable) -> Flat:
    """The price of each model, and of when they are; nothing where all is free."""
    if not prices.date:
        return {}
    models = {f"prices.{name}": price for name, price in prices.by_model().items()}
    return {"prices.date": prices.date, "prices.source": prices.source, **models}


def leaves(document: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """The values of nested objects, by their paths."""
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{path}.{name}")
        else:
            yield f"{path}.{name}", value


def fields_of(value: Any, path: str) -> Iterator[tuple[str, Any, bool]]:
    """The fields of a dataclass and of those in it, and whether each has its default; lists of
    named ones go by their names."""
    for field in dataclasses.fields(value):
        if field.name in _LEFT_OUT:
            continue
        inner, at = getattr(value, field.name), f"{path}.{field.name}"
        if dataclasses.is_dataclass(inner):
            yield from fields_of(inner, at)
        elif isinstance(inner, tuple) and inner and all(map(dataclasses.is_dataclass, inner)):
            for one in inner:
                yield from fields_of(one, f"{at}.{one.name}")
        else:
            made = field.default_factory
            default = field.default if made is dataclasses.MISSING else made()
            yield at, inner, inner == default


def shown(value: Any) -> Any:
    """A value as JSON can carry it, secrets masked."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return _USER_OF_URL.sub(rf"\1{MASK}@", value)
    if isinstance(value, SecretStr):
        return MASK
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: shown(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {
            str(name): MASK if _SECRET_FIELD.search(str(name)) else shown(inner)
            for name, inner in value.items()
        }
    if isinstance(value, tuple | list):
        return [shown(inner) for inner in value]
    if isinstance(value, set | frozenset):
        return sorted(str(shown(inner)) for inner in value)
    return str(value)


def digest_of(flat: Flat) -> str:
    """16 hexadecimal digits that change with anything but a secret's value."""
    text = json.dumps({name: shown(value) for name, value in flat.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
