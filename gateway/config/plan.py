"""What is different between two configurations, and how much of it a reload can take.

Everything of ``gateway.yaml`` is taken together or not at all: where an engine of this process
would have to be another one, all of the file waits for a restart.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from engine.config import EngineConfig
from gateway.config.flat import Flat, shown
from gateway.config.snapshot import ConfigInvalid, Snapshot, keep, new_snapshot
from gateway.config.takes import takes
from gateway.routing.config import RoutingConfig
from gateway.routing.load import ConfigError, routing_config
from gateway.settings import Settings

ABSENT = object()


@dataclass(frozen=True, slots=True)
class Change:
    """One value that is different. ``before`` and ``after`` are as they are shown, without
    secrets; None where there is none.

    Attributes:
        reload: whether a reload takes it; otherwise it needs a restart.
    """

    name: str
    before: Any
    after: Any
    reload: bool

    def card(self) -> dict[str, Any]:
        """As the admin API shows it."""
        return {
            "name": self.name,
            "before": self.before,
            "after": self.after,
            "applies": "reload" if self.reload else "restart",
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """What a reload does.

    Attributes:
        before: the configuration that it begins with.
        snapshot: the one that it puts in force.
        applied: what it changes.
        waiting: what it leaves as it is until a restart.
    """

    before: Snapshot
    snapshot: Snapshot
    applied: list[Change]
    waiting: list[Change]


def plan(present: Snapshot, read: Snapshot) -> Plan:
    """How to get from one configuration to the other. Raises ConfigInvalid."""
    snapshot = reloaded(present, read)
    applied = changes(present, snapshot, reload=True)
    return Plan(present, snapshot, applied, changes(snapshot, read, reload=False))


def changes(old: Snapshot, new: Snapshot, *, reload: bool) -> list[Change]:
    """What is different, by name."""
    before, after = old.flat(), new.flat()
    return [
        Change(name, shown(before.get(name)), shown(after.get(name)), reload)
        for name in sorted({*before, *after})
        if differs(before, after, name)
    ]


def differs(before: Flat, after: Flat, name: str) -> bool:
    """Whether the value is another; a missing one and an empty object are the same."""
    old, new = before.get(name, ABSENT), after.get(name, ABSENT)
    return bool(old != new) and not (old in (ABSENT, {}) and new in (ABSENT, {}))


def reloaded(present: Snapshot, read: Snapshot) -> Snapshot:
    """What is in force after a reload. Raises ConfigInvalid."""
    old, new = present.settings, read.settings
    always = staying(old, new, engines_stay=True)
    kept_engines = {name: getattr(old, name) for name in always}
    try:
        routing = routing_config(new.model_copy(update=kept_engines))
    except (ConfigError, ValueError) as error:
        raise ConfigInvalid(str(error)) from None
    stay = engines_of(present.routing) == engines_of(routing)
    kept = staying(old, new, engines_stay=stay)
    sources = dict(read.sources) | {name: present.sources.get(name, "default") for name in kept}
    settings = keep(old, new, kept)
    return new_snapshot(settings, routing if stay else present.routing, read.prices, sources)


def engines_of(routing: RoutingConfig) -> dict[tuple[str, str], tuple[EngineConfig, int]]:
    """Every engine, by model and target; the aliases of its model are no part of it."""
    return {
        (model.name, target.name): (replace(target.engine, served_names=()), target.replicas)
        for model in routing.models
        for target in model.locals
    }


def staying(old: Settings, new: Settings, *, engines_stay: bool) -> frozenset[str]:
    """Names of the settings that are different and that a reload leaves as they are."""
    return frozenset(
        name
        for name in Settings.model_fields
        if getattr(old, name) != getattr(new, name) and not takes(name, engines_stay=engines_stay)
    )
