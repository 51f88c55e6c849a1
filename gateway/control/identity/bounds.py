"""How far rights reach: whether one key's are within another's, and what both allow.

Every field of Rights and Limits is compared here, and a field that this file does not know is
an error, so that a right that is added later cannot be handed out unchecked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from gateway.control.rights import (
    ALL_RIGHTS,
    CLASSES,
    DEFAULT_TENANT,
    SCOPES,
    Limits,
    Rights,
    Tenant,
)

Network = IPv4Network | IPv6Network

LIMIT_NAMES = tuple(field.name for field in fields(Limits))
# No request comes from here. An empty tuple would mean anywhere.
NOWHERE: tuple[Network, ...] = (IPv4Network("0.0.0.0/32"),)
_COMPARED = {
    "models",
    "endpoints",
    "highest_class",
    "limits",
    "sources",
    "admin",
    "manages",
    "weight",
}
if {field.name for field in fields(Rights)} != _COMPARED:
    raise AssertionError("gateway/control/identity/bounds.py must compare every right")


@dataclass(frozen=True, slots=True)
class Grant:
    """Everything that a key stands for.

    Attributes:
        expires_at: Unix seconds, or None for a key that does not expire.
    """

    tenant: Tenant = DEFAULT_TENANT
    rights: Rights = ALL_RIGHTS
    expires_at: float | None = None


MOST_WEIGHT = 1000.0
# Of the command line and of ADMIN_KEYS.
OPERATOR = Grant(rights=Rights(admin=True, manages="server", weight=MOST_WEIGHT))


def excess(asked: Grant, bound: Grant) -> str | None:
    """The first thing in which ``asked`` goes beyond ``bound``, as a field name; else None."""
    return next(_excesses(asked, bound), None)


def _excesses(asked: Grant, bound: Grant) -> Iterator[str]:
    mine, most = asked.rights, bound.rights
    if not manages(bound, asked.tenant):
        yield (
            "organisation" if asked.tenant.organisation != bound.tenant.organisation else "project"
        )
    if not _is_subset(mine.models, most.models):
        yield "rights.models"
    if not _is_subset(mine.endpoints, most.endpoints):
        yield "rights.endpoints"
    if CLASSES.index(mine.highest_class) < CLASSES.index(most.highest_class):
        yield "rights.highest_class"
    for name in LIMIT_NAMES:
        if not _is_at_most(getattr(mine.limits, name), getattr(most.limits, name)):
            yield f"rights.limits.{name}"
    if not _is_inside(mine.sources, most.sources):
        yield "rights.sources"
    if mine.admin and not most.admin:
        yield "rights.admin"
    if mine.admin and SCOPES.index(mine.manages) > SCOPES.index(most.manages):
        yield "rights.manages"
    if mine.weight > most.weight:
        yield "rights.weight"
    if not _is_at_most(asked.expires_at, bound.expires_at):
        yield "expires_at"


def manages(bound: Grant, tenant: Tenant) -> bool:
    """Whether an admin with this grant has to do with the keys of a tenant at all."""
    scope = bound.rights.manages
    if scope == "server":
        return True
    if tenant.organisation != bound.tenant.organisation:
        return False
    return scope == "organisation" or tenant.project == bound.tenant.project


def meet(own: Grant, bound: Grant) -> Grant:
    """What both allow, with the tenant of ``own``: a key never outgrows the one that made it."""
    mine, most = own.rights, bound.rights
    return Grant(
        tenant=own.tenant,
        rights=Rights(
            models=_common(mine.models, most.models),
            endpoints=_common(mine.endpoints, most.endpoints),
            highest_class=max(mine.highest_class, most.highest_class, key=CLASSES.index),
            limits=Limits(
                **{
                    name: _least(getattr(mine.limits, name), getattr(most.limits, name))
                    for name in LIMIT_NAMES
                }
            ),
            sources=_overlap(mine.sources, most.sources),
            admin=mine.admin and most.admin and manages(bound, own.tenant),
            manages=min(mine.manages, most.manages, key=SCOPES.index),
            weight=min(mine.weight, most.weight),
        ),
        expires_at=_least(own.expires_at, bound.expires_at),
    )


def _is_subset(mine: frozenset[str] | None, most: frozenset[str] | None) -> bool:
    return most is None or (mine is not None and mine <= most)


def _common(mine: frozenset[str] | None, most: frozenset[str] | None) -> frozenset[str] | None:
    if mine is None or most is None:
        return most if mine is None else mine
    return mine & most


def _is_at_most(mine: float | None, most: float | None) -> bool:
    return most is None or (mine is not None and mine <= most)


def _least(mine: Any, most: Any) -> Any:
    return min((value for value in (mine, most) if value is not None), default=None)


def _is_inside(mine: tuple[Network, ...], most: tuple[Network, ...]) -> bool:
    if not most or mine == NOWHERE:
        return True
    return bool(mine) and all(any(_lies_in(one, other) for other in most) for one in mine)


def _overlap(mine: tuple[Network, ...], most: tuple[Network, ...]) -> tuple[Network, ...]:
    if not mine or not most:
        return mine or most
    # Two networks are disjoint, or one of them lies in the other.
    found = {one for one in mine for other in most if _lies_in(one, other)}
    found |= {other for other in most for one in mine if _lies_in(other, one)}
    return tuple(sorted(found, key=str)) or NOWHERE


def _lies_in(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network) and isinstance(other, IPv4Network):
        return one.subnet_of(other)
    if isinstance(one, IPv6Network) and isinstance(other, IPv6Network):
        return one.subnet_of(other)
    return False
