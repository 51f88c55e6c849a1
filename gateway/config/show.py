"""The configuration in force, for people and programs: each value with where it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.config.flat import routing_defaults, shown
from gateway.config.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Entry:
    """One value, as it is shown.

    Attributes:
        source: ``default``, ``environment``, ``command line``, or a file.
    """

    name: str
    value: Any
    source: str

    def card(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {"name": self.name, "value": self.value, "source": self.source}


def entries(snapshot: Snapshot) -> list[Entry]:
    """Every value: settings in their order, then models, then prices."""
    defaults = routing_defaults(snapshot.routing)
    return [
        Entry(name, shown(value), "default" if name in defaults else source_of(name, snapshot))
        for name, value in snapshot.flat().items()
    ]


def source_of(name: str, snapshot: Snapshot) -> str:
    """Where a value of ``Snapshot.flat`` comes from."""
    first = name.partition(".")[0]
    settings = snapshot.settings
    if first == "models":
        file = str(settings.config_file)
        # What a target in this process leaves out is as in the settings.
        return f"{file} or settings" if ".engine." in name else file
    if first == "prices":
        return str(settings.prices_file)
    return snapshot.sources.get(first.lower(), "default")
