"""A stored key: its row, its rights as JSON, and how it is shown."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, fields
from ipaddress import ip_network
from typing import Any

import orjson

from gateway.control.identity.bounds import LIMIT_NAMES, Grant
from gateway.control.rights import Limits, Rights, Tenant

COLUMNS = (
    "id, name, organisation, project, digest, previous_digest, previous_until, rights, parent, "
    "created_at, created_by, expires_at, rotated_at, revoked_at"
)

Row = tuple[Any, ...]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class StoredKey:
    """One row. Times are Unix seconds.

    Attributes:
        digest: SHA-256 of the secret.
        previous_digest: of the secret before the last rotation; it works until
            ``previous_until``.
        parent: the key that made this one; None for one made at the command line or with a key
            of ADMIN_KEYS. A key never allows more than its parent.
        created_by: ``cli:USER`` or the id of the key that asked.
    """

    id: str
    name: str
    tenant: Tenant
    digest: bytes = field(repr=False)
    previous_digest: bytes | None = field(repr=False)
    previous_until: float | None
    rights: Rights
    parent: str | None
    created_at: float
    created_by: str
    expires_at: float | None
    rotated_at: float | None
    revoked_at: float | None

    @classmethod
    def of(cls, row: Row) -> StoredKey:
        """From the columns in the order of COLUMNS."""
        key_id, name, organisation, project, digest, previous, until, rights, parent, *rest = row
        return cls(
            key_id,
            name,
            Tenant(organisation, project),
            digest,
            previous,
            until,
            rights_from_json(orjson.loads(rights)),
            parent,
            *rest,
        )

    @property
    def grant(self) -> Grant:
        """What it stands for by itself, without regard to its parent."""
        return Grant(self.tenant, self.rights, self.expires_at)

    def status(self, now: float) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def card(self, now: float | None = None) -> Json:
        """As the API, the command line and the audit log show it; nothing in it is secret."""
        now = time.time() if now is None else now
        replaced = self.previous_until
        return {
            "id": self.id,
            "object": "key",
            "name": self.name,
            "organisation": self.tenant.organisation,
            "project": self.tenant.project,
            "status": self.status(now),
            "created_at": int(self.created_at),
            "created_by": self.created_by,
            "parent": self.parent,
            "expires_at": whole(self.expires_at),
            "rotated_at": whole(self.rotated_at),
            "previous_secret_until": whole(replaced) if replaced and replaced > now else None,
            "revoked_at": whole(self.revoked_at),
            "rights": rights_to_json(self.rights),
        }


def whole(seconds: float | None) -> int | None:
    """Unix seconds as the APIs show them."""
    return None if seconds is None else int(seconds)


def rights_to_json(rights: Rights) -> Json:
    """Every right; limits only where there is one. Null is all."""
    limits = {name: getattr(rights.limits, name) for name in LIMIT_NAMES}
    return {
        "models": None if rights.models is None else sorted(rights.models),
        "endpoints": None if rights.endpoints is None else sorted(rights.endpoints),
        "highest_class": rights.highest_class,
        "limits": {name: value for name, value in limits.items() if value is not None},
        "sources": [str(network) for network in rights.sources],
        "admin": rights.admin,
        "manages": rights.manages,
        "weight": rights.weight,
    }


def rights_from_json(document: Json, base: Rights | None = None) -> Rights:
    """Rights from checked JSON; what it leaves out is as in ``base``."""
    own = {right.name: getattr(base or Rights(), right.name) for right in fields(Rights)}
    for name, value in document.items():
        if name in ("models", "endpoints"):
            own[name] = None if value is None else frozenset(value)
        elif name == "limits":
            own[name] = Limits(**value)
        elif name == "sources":
            own[name] = tuple(ip_network(text) for text in value)
        else:
            own[name] = value
    return Rights(**own)
