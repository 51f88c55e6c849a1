"""Making, changing and ending keys. Each change and its audit entry are one transaction.

The rights of whoever asks are read in that transaction too, so a key that has just been revoked
or narrowed by another process cannot slip a change through.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import replace
from typing import Any

from gateway.control.identity import audit
from gateway.control.identity.audit import Actor
from gateway.control.identity.authority import (
    bound_of,
    check_within,
    check_within_parent,
    find_visible,
    visible_tenant,
)
from gateway.control.identity.bounds import Grant
from gateway.control.identity.parameters import CREATE, DEFAULT_GRACE_S, REVOKE, ROTATE, UPDATE
from gateway.control.identity.secrets import NewSecret, new_key_id, new_secret, read_key_id
from gateway.control.identity.store import (
    KeyStore,
    insert_key,
    position_of,
    replace_key,
    select_keys,
)
from gateway.control.identity.stored_key import StoredKey, rights_from_json
from gateway.control.rights import Tenant
from gateway.errors import Conflict, InvalidRequest

Json = dict[str, Any]


class KeyAdmin:
    """Everything that can be done to keys. For any thread; every call blocks on the disk.

    Every method raises StorageUnavailable, InvalidApiKey for an actor whose key has ended, and
    ObjectNotFound for a key that does not exist or that the actor has nothing to do with.
    """

    def __init__(self, store: KeyStore) -> None:
        self.store = store

    def create(self, actor: Actor, document: Json) -> tuple[StoredKey, NewSecret]:
        """A new key; its secret is not to be had again.

        What ``document`` leaves out is as for the actor, except that the key is no admin.
        Raises InvalidRequest, and NotPermitted for more than the actor has.
        """
        asked = CREATE.read(document, "")
        now = time.time()
        with self.store.change() as db:
            bound = bound_of(db, actor)
            weight = min(bound.rights.weight, 1.0)
            base = replace(bound.rights, admin=False, manages="project", weight=weight)
            key_id = new_key_id()
            secret = new_secret(key_id)
            key = StoredKey(
                id=key_id,
                name=asked.get("name", ""),
                tenant=Tenant(
                    asked.get("organisation", bound.tenant.organisation),
                    asked.get("project", bound.tenant.project),
                ),
                digest=secret.digest,
                previous_digest=None,
                previous_until=None,
                rights=rights_from_json(asked.get("rights", {}), base),
                parent=actor.id if actor.is_stored else None,
                created_at=now,
                created_by=actor.id,
                expires_at=expiry(asked, now, bound.expires_at),
                rotated_at=None,
                revoked_at=None,
            )
            check_within(key.grant, bound)
            insert_key(db, key)
            audit.note(db, actor, "key.create", key.id, None, key.card(now), key.tenant)
        return key, secret

    def update(self, actor: Actor, key_id: str, document: Json) -> StoredKey:
        """Change name, expiry or rights; a right that is given replaces the one that was.

        Raises InvalidRequest, Conflict for a revoked key, and NotPermitted for more than the
        actor has, before or after.
        """
        asked = UPDATE.read(document, "")
        now = time.time()
        with self.store.change() as db:
            before, bound = self._changeable(db, actor, key_id)
            after = replace(
                before,
                name=asked.get("name", before.name),
                expires_at=expiry(asked, now, before.expires_at),
                rights=rights_from_json(asked.get("rights", {}), before.rights),
            )
            check_within(after.grant, bound)
            check_within_parent(db, after)
            self._write(db, actor, "key.update", before, after, now)
        return after

    def rotate(self, actor: Actor, key_id: str, document: Json) -> tuple[StoredKey, NewSecret]:
        """A new secret for a key; the present one works on for ``grace_s`` seconds.

        Raises InvalidRequest, NotPermitted, and Conflict for a revoked key and while the secret
        before the present one still works, unless no grace is asked for: that ends all others.
        """
        grace_s = ROTATE.read(document, "").get("grace_s", DEFAULT_GRACE_S)
        now = time.time()
        with self.store.change() as db:
            before, _ = self._changeable(db, actor, key_id)
            if grace_s and before.previous_until is not None and before.previous_until > now:
                left_s = int(before.previous_until - now) + 1
                raise Conflict(
                    f"{before.id} has been rotated already and its secret before that works for "
                    f"{left_s} more seconds. Wait, or rotate with a grace of 0 to end every "
                    "secret but the new one at once."
                )
            secret = new_secret(before.id)
            after = replace(
                before,
                digest=secret.digest,
                previous_digest=before.digest if grace_s else None,
                previous_until=now + grace_s if grace_s else None,
                rotated_at=now,
            )
            self._write(db, actor, "key.rotate", before, after, now)
        return after, secret

    def revoke(self, actor: Actor, key_id: str, document: Json | None = None) -> StoredKey:
        """End a key for good; one that was revoked before stays as it is. Raises NotPermitted."""
        REVOKE.read(document or {}, "")
        now = time.time()
        with self.store.change() as db:
            bound = bound_of(db, actor)
            before = find_visible(db, bound, key_id)
            if before.revoked_at is not None:
                return before
            check_within(before.grant, bound)
            after = replace(before, revoked_at=now, previous_digest=None, previous_until=None)
            self._write(db, actor, "key.revoke", before, after, now)
        return after

    def get(self, actor: Actor, key_id: str) -> StoredKey:
        """One key."""
        with self.store.view() as db:
            return find_visible(db, bound_of(db, actor), key_id)

    def page(
        self,
        actor: Actor,
        *,
        organisation: str | None = None,
        project: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[list[StoredKey], bool]:
        """Keys, newest first, and whether more follow. Raises InvalidRequest."""
        with self.store.view() as db:
            bound = bound_of(db, actor)
            tenant = visible_tenant(bound, organisation, project)
            position = None if after is None else position_of(db, read_key_id(after) or "")
            if after is not None and position is None:
                raise InvalidRequest("Invalid 'after': no such key.", param="after")
            found = select_keys(db, *tenant, position, limit + 1)
        return found[:limit], len(found) > limit

    def audit_page(
        self,
        actor: Actor,
        *,
        target: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[list[Json], bool]:
        """Audit entries, newest first, and whether more follow. Raises InvalidRequest."""
        number = (after or "").removeprefix("audit_")
        if after is not None and not (number.isascii() and number.isdigit() and len(number) < 19):
            raise InvalidRequest("Invalid 'after': no such entry.", param="after")
        with self.store.view() as db:
            organisation, project = visible_tenant(bound_of(db, actor), None, None)
            found = audit.select_entries(
                db,
                organisation=organisation,
                project=project,
                target=target,
                after=int(number) if number else None,
                limit=limit + 1,
            )
        return found[:limit], len(found) > limit

    def note(
        self, actor: Actor, action: str, target: str, before: Json | None, after: Json | None
    ) -> None:
        """Add an audit entry for a change that is not one of keys."""
        with self.store.change() as db:
            audit.note(db, actor, action, target, before, after)

    def _write(
        self,
        db: sqlite3.Connection,
        actor: Actor,
        action: str,
        before: StoredKey,
        after: StoredKey,
        now: float,
    ) -> None:
        replace_key(db, after)
        cards = before.card(now), after.card(now)
        audit.note(db, actor, action, before.id, *cards, before.tenant)

    def _changeable(
        self, db: sqlite3.Connection, actor: Actor, key_id: str
    ) -> tuple[StoredKey, Grant]:
        bound = bound_of(db, actor)
        key = find_visible(db, bound, key_id)
        if key.revoked_at is not None:
            raise Conflict(f"{key.id} is revoked; make a new key instead.")
        check_within(key.grant, bound)
        return key, bound


def expiry(asked: Json, now: float, otherwise: float | None) -> float | None:
    """When the key ends. Raises InvalidRequest."""
    if "expires_at" in asked and "expires_in_s" in asked:
        raise InvalidRequest(
            "Give either 'expires_at' or 'expires_in_s', not both.", param="expires_in_s"
        )
    if "expires_in_s" in asked:
        return now + float(asked["expires_in_s"])
    if "expires_at" not in asked:
        return otherwise
    moment = asked["expires_at"]
    if moment is not None and moment <= now:
        raise InvalidRequest("Invalid 'expires_at': it is in the past.", param="expires_at")
    return None if moment is None else float(moment)
