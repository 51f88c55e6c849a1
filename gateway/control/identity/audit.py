"""The audit log: who changed what, before and after. Rows are added and never touched again.

The tables' triggers refuse every change and removal (see schema.py).
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.control.rights import Principal, Tenant

Json = dict[str, Any]

COLUMNS = "id, at, actor, source, request_id, action, target, organisation, project, before, after"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change.

    Attributes:
        id: public id of the key, or ``cli:USER``.
        is_stored: whether the rights that bind it are those of a stored key; otherwise it is
            the operator, who may do anything.
        source: the address that it came from, or None.
        request_id: of the request, or None.
    """

    id: str
    is_stored: bool = False
    source: str | None = None
    request_id: str | None = None

    @classmethod
    def of(cls, principal: Principal, source: str | None, request_id: str) -> Actor:
        """Whoever sent an admin request."""
        return cls(principal.id, principal.shares_as is not None, source, request_id)


def note(
    db: sqlite3.Connection,
    actor: Actor,
    action: str,
    target: str,
    before: Json | None,
    after: Json | None,
    tenant: Tenant | None = None,
) -> None:
    """Add an entry, in the transaction of the change itself. Neither state holds secrets.

    Args:
        action: such as ``key.create``.
        target: id of what was changed.
        tenant: whose it is; None for what belongs to the server.
    """
    db.execute(
        "INSERT INTO audit (at, actor, source, request_id, action, target, organisation, "
        "project, before, after) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            time.time(),
            actor.id,
            actor.source,
            actor.request_id,
            action,
            target,
            tenant.organisation if tenant is not None else None,
            tenant.project if tenant is not None else None,
            pack(before),
            pack(after),
        ),
    )


def select_entries(
    db: sqlite3.Connection,
    *,
    organisation: str | None,
    project: str | None,
    target: str | None,
    after: int | None,
    limit: int,
) -> list[Json]:
    """Entries as they are shown, newest first; None filters nothing."""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM audit "  # noqa: S608 - a constant
        "WHERE (:organisation IS NULL OR organisation = :organisation) "
        "AND (:project IS NULL OR project = :project) AND (:target IS NULL OR target = :target) "
        "AND (:after IS NULL OR id < :after) ORDER BY id DESC LIMIT :limit",
        {
            "organisation": organisation,
            "project": project,
            "target": target,
            "after": after,
            "limit": limit,
        },
    )
    return [shown(row) for row in rows]


def shown(row: tuple[Any, ...]) -> Json:
    """An entry as the API shows it."""
    entry = dict(zip(COLUMNS.split(", "), row, strict=True))
    before, after = entry.pop("before"), entry.pop("after")
    return {
        **entry,
        "id": f"audit_{entry['id']}",
        "object": "audit_entry",
        "at": int(entry["at"]),
        "before": None if before is None else orjson.loads(before),
        "after": None if after is None else orjson.loads(after),
    }


def pack(state: Json | None) -> str | None:
    """A state as it is stored."""
    return None if state is None else orjson.dumps(state).decode()
