"""Who has which limits: those of a key itself, and those the operator sets beside the keys.

{"models": {"m": {"tokens_per_minute": 200000}},
 "organisations": {"acme": {"usd_per_month": 500}},
 "projects": {"acme/search": {"requests_per_minute": 600}},
 "keys": {"key_0123456789ab": {"concurrent_requests": 4}},
 "default_key": {"requests_per_minute": 60}}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from gateway.control.limits.counter import Key
from gateway.control.limits.windows import Window, set_windows
from gateway.control.rights import NO_LIMITS, Limits, Principal

SECTIONS = ("models", "organisations", "projects", "keys")
MOST = 10**12
MOST_USD = 1e6
FIELDS = {one.name for one in fields(Limits)}

Applying = list[tuple[Key, Window, int]]


@dataclass(frozen=True)
class LimitTable:
    """Limits by the names of their holders.

    Attributes:
        projects: by ``organisation/project``.
        keys: by the public id of the key; they come in place of the key's own.
        default_key: for what a key's own limits leave open.
    """

    models: Mapping[str, Limits] = field(default_factory=dict)
    organisations: Mapping[str, Limits] = field(default_factory=dict)
    projects: Mapping[str, Limits] = field(default_factory=dict)
    keys: Mapping[str, Limits] = field(default_factory=dict)
    default_key: Limits = NO_LIMITS

    def of(self, principal: Principal, model: str) -> Applying:
        """Every limit that a request of this caller to this model has to keep."""
        tenant = principal.tenant
        project = f"{tenant.organisation}/{tenant.project}"
        organisation = self.organisations.get(tenant.organisation, NO_LIMITS)
        found: Applying = []
        for scope, name, limits in (
            ("key", principal.id, self.of_key(principal)),
            ("project", project, self.projects.get(project, NO_LIMITS)),
            ("organisation", tenant.organisation, organisation),
            ("model", model, self.models.get(model, NO_LIMITS)),
        ):
            if limits is not NO_LIMITS:
                for window, limit in set_windows(limits):
                    found.append(((scope, name, window.field), window, limit))
        return found

    def of_key(self, principal: Principal) -> Limits:
        """The limits of the key itself."""
        own = self.keys.get(principal.id, principal.rights.limits)
        return own if self.default_key == NO_LIMITS else over(own, self.default_key)

    def under(self, first_names: Mapping[str, str]) -> LimitTable:
        """The same, with models by their first names; of two for one model both hold."""
        models: dict[str, Limits] = {}
        for name, limits in self.models.items():
            first = first_names.get(name, name)
            models[first] = stricter(models.get(first, NO_LIMITS), limits)
        return replace(self, models=models)


def over(own: Limits, default: Limits) -> Limits:
    """``own``, with what it leaves open taken from ``default``."""
    missing = {name: getattr(default, name) for name in FIELDS if getattr(own, name) is None}
    return replace(own, **missing)


def stricter(one: Limits, other: Limits) -> Limits:
    """The lower one of each limit."""
    lowest = {}
    for name in FIELDS:
        values = [
            value for value in (getattr(one, name), getattr(other, name)) if value is not None
        ]
        lowest[name] = min(values, default=None)
    return Limits(**lowest)


def read_table(document: Any) -> LimitTable:
    """The table that a parsed LIMITS describes. Raises ValueError naming the place."""
    if not isinstance(document, dict):
        raise ValueError('a JSON object is needed, such as {"default_key":{...}}')
    if unknown := sorted(set(document) - {*SECTIONS, "default_key"}):
        known = ", ".join((*SECTIONS, "default_key"))
        raise ValueError(f"'{unknown[0]}' is unknown; there are {known}")
    sections: dict[str, dict[str, Limits]] = {}
    for section in SECTIONS:
        entries = document.get(section, {})
        if not isinstance(entries, dict):
            raise ValueError(f"'{section}' must be an object of limits by name")
        sections[section] = {
            name: read_limits(entry, f"{section}.{name}") for name, entry in entries.items()
        }
    for name in sections["projects"]:
        if name.count("/") != 1 or not all(name.split("/")):
            raise ValueError(f"'projects.{name}' must be called organisation/project")
    return LimitTable(
        default_key=read_limits(document.get("default_key", {}), "default_key"), **sections
    )


def read_limits(document: Any, where: str) -> Limits:
    """The limits of one holder. Raises ValueError naming the place."""
    if not isinstance(document, dict):
        raise ValueError(f"'{where}' must be an object of limits")
    if unknown := sorted(set(document) - FIELDS):
        known = ", ".join(one.name for one in fields(Limits))
        raise ValueError(f"'{where}.{unknown[0]}' is unknown; there are {known}")
    for name, value in document.items():
        if name.startswith("usd"):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not 0 <= value <= MOST_USD:
                raise ValueError(f"'{where}.{name}' must be US dollars, from 0 to {MOST_USD:.0f}")
        elif not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
            raise ValueError(f"'{where}.{name}' must be an integer from 1 to {MOST}")
    return Limits(**document)
