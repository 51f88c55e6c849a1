"""What whoever asks may do to keys, and how it is told when that is not enough."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace

from gateway.control.identity.audit import Actor
from gateway.control.identity.bounds import OPERATOR, Grant, excess, manages, meet
from gateway.control.identity.secrets import read_key_id
from gateway.control.identity.store import find_key
from gateway.control.identity.stored_key import StoredKey
from gateway.errors import InvalidApiKey, InvalidRequest, NotPermitted, ObjectNotFound


def bound_of(db: sqlite3.Connection, actor: Actor) -> Grant:
    """What the actor may hand out at most.

    Raises InvalidApiKey once its key has ended, and NotPermitted when it is no admin's.
    """
    if not actor.is_stored:
        return OPERATOR
    key = find_key(db, actor.id)
    now = time.time()
    if key is None or key.status(now) != "active":
        raise InvalidApiKey("Incorrect API key provided.")
    grant = effective(db, key)
    if grant.expires_at is not None and grant.expires_at <= now:
        raise InvalidApiKey("Incorrect API key provided.")
    if not grant.rights.admin:
        raise NotPermitted("This needs an admin key.", code="admin_key_required")
    return grant


def effective(db: sqlite3.Connection, key: StoredKey) -> Grant:
    """What a key really allows: no more than the keys that it descends from."""
    grant = key.grant
    ancestor: StoredKey | None = key
    while ancestor is not None and ancestor.parent is not None:
        ancestor = find_key(db, ancestor.parent)
        if ancestor is not None:
            grant = meet(grant, ancestor.grant)
    return grant


def find_visible(db: sqlite3.Connection, bound: Grant, key_id: str) -> StoredKey:
    """A key that the actor has to do with. Raises ObjectNotFound."""
    wanted = read_key_id(key_id)
    key = find_key(db, wanted) if wanted is not None else None
    if key is None or not manages(bound, key.tenant):
        # Other text is not repeated: it may be a whole key.
        known = f"with id '{wanted}'" if wanted is not None else "of that name; ids begin with key_"
        raise ObjectNotFound(f"There is no key {known}.", param="key_id")
    return key


def check_within(asked: Grant, bound: Grant) -> None:
    """Raise NotPermitted unless ``asked`` is within what the actor has itself."""
    beyond = excess(asked, bound)
    if beyond is not None:
        raise NotPermitted(
            f"A key can give and change only what it has itself; '{beyond}' goes beyond it.",
            param=beyond,
            code="rights_exceeded",
        )


def check_within_parent(db: sqlite3.Connection, key: StoredKey) -> None:
    """Raise InvalidRequest for a key that is to have more than the key that made it."""
    parent = find_key(db, key.parent) if key.parent is not None else None
    if parent is None:
        return
    bound = effective(db, parent)
    # An organisation's admin makes keys for other projects than its own.
    beyond = excess(replace(key.grant, tenant=bound.tenant), bound)
    if beyond is not None:
        raise InvalidRequest(
            f"Invalid '{beyond}': the key was made by {parent.id} and cannot have more than that "
            "one. Widen that one first.",
            param=beyond,
            code="rights_exceeded",
        )


def visible_tenant(
    bound: Grant, organisation: str | None, project: str | None
) -> tuple[str | None, str | None]:
    """The organisation and project to list, of those that the actor has to do with."""
    scope, own = bound.rights.manages, bound.tenant
    if scope == "server":
        return organisation, project
    if organisation not in (None, own.organisation):
        raise NotPermitted("This key manages one organisation only.", code="rights_exceeded")
    if scope == "organisation":
        return own.organisation, project
    if project not in (None, own.project):
        raise NotPermitted("This key manages one project only.", code="rights_exceeded")
    return own.organisation, own.project
