"""What a caller may do: values shared by keys, limits, admission and accounting."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Literal

# From the one that waits least to the one that waits most.
PriorityClass = Literal["interactive", "default", "batch"]
CLASSES: tuple[PriorityClass, ...] = ("interactive", "default", "batch")

# What an admin key may manage, from the least to the most.
Scope = Literal["project", "organisation", "server"]
SCOPES: tuple[Scope, ...] = ("project", "organisation", "server")


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose requests these are: limits, cached prefixes, usage and audit go by it."""

    organisation: str = "default"
    project: str = "default"


@dataclass(frozen=True, slots=True)
class Limits:
    """Most of each in its window; None is unlimited. Tokens are prompt plus completion.

    Days and months are those of the calendar in UTC.
    """

    requests_per_second: int | None = None
    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_second: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrent_requests: int | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Rights:
    """What a key allows.

    Attributes:
        models: names that may be asked for; None is all.
        endpoints: groups of routes (``chat``, ``completions``, ``responses``, ``messages``,
            ``embeddings``, ``tokens``, ``files``, ``batches``, ``predict``, ``models``,
            ``metrics``); None is all of these. ``admin`` is never among them.
        highest_class: the class its requests have at most.
        limits: of the key itself; those of its tenant and of models come on top.
        sources: networks it may be used from; empty is anywhere.
        admin: whether the admin API may be used.
        manages: with ``admin``, whose keys it manages: those of its own project, of its own
            organisation, or all. Everything else below ``/admin`` needs ``server``.
        weight: share of the engine relative to other tenants when it is contended.
    """

    models: frozenset[str] | None = None
    endpoints: frozenset[str] | None = None
    highest_class: PriorityClass = "interactive"
    limits: Limits = NO_LIMITS
    sources: tuple[IPv4Network | IPv6Network, ...] = ()
    admin: bool = False
    manages: Scope = "project"
    weight: float = 1.0

    def allows_model(self, name: str) -> bool:
        """Whether requests may name this model."""
        return self.models is None or name in self.models


ALL_RIGHTS = Rights()
DEFAULT_TENANT = Tenant()


@dataclass(frozen=True, slots=True)
class Principal:
    """A known caller.

    Attributes:
        id: public id of the key; safe to log, does not reveal the key.
        cache_salt: separates the cached prefixes of its owner from everybody else's.
        shares_as: the name under which its project shares stored objects; None for a key that
            shares them with no other.
    """

    id: str
    cache_salt: str
    tenant: Tenant = field(default=DEFAULT_TENANT)
    rights: Rights = field(default=ALL_RIGHTS)
    shares_as: str | None = None

    @property
    def owner(self) -> str:
        """Whose stored objects (responses, files, batches) it makes and sees."""
        return self.shares_as or self.id
