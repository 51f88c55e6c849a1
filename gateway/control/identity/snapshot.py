"""Every stored key as requests see it: immutable, in memory, replaced as a whole.

The request path reads nothing else; see watch.py for how a new snapshot comes about.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gateway.control.identity.bounds import Grant, meet
from gateway.control.identity.secrets import split_key
from gateway.control.identity.stored_key import COLUMNS, Row, StoredKey
from gateway.control.rights import Principal, Tenant
from gateway.errors import InvalidApiKey, StorageUnavailable


@dataclass(frozen=True, slots=True)
class Entry:
    """One key, ready to be compared.

    Attributes:
        row: what it was made of.
        grant: what it allows in the end, its parents regarded.
    """

    row: Row = field(repr=False)
    key: StoredKey
    grant: Grant
    principal: Principal

    def check(self, now: float) -> None:
        """Raise InvalidApiKey once the key has ended."""
        if self.key.revoked_at is not None:
            raise InvalidApiKey("This API key has been revoked.")
        if self.grant.expires_at is not None and self.grant.expires_at <= now:
            raise InvalidApiKey("This API key has expired.")


# Stands in for a key that does not exist, so that looking for one costs the same.
_NO_DIGEST = os.urandom(32)
INCORRECT = "Incorrect API key provided."


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known of the stored keys.

    Attributes:
        entries: by public id, ended ones included.
        closed: there are or were stored keys, so nobody gets in without one, even once all of
            them have ended.
        readable: whether they have been read at all.
    """

    entries: Mapping[str, Entry] = field(default_factory=lambda: MappingProxyType({}))
    closed: bool = False
    readable: bool = True

    def identify(self, presented: bytes) -> Principal:
        """The caller who presents this key. Raises InvalidApiKey, and StorageUnavailable when
        the keys could never be read."""
        parts = split_key(presented)
        if parts is None:
            raise InvalidApiKey(INCORRECT)
        if not self.readable:
            raise StorageUnavailable("API keys cannot be checked now. Please retry shortly.")
        key_id, digest = parts
        entry = self.entries.get(key_id)
        known = entry.key.digest if entry is not None else _NO_DIGEST
        previous = (entry.key.previous_digest if entry is not None else None) or _NO_DIGEST
        is_current = hmac.compare_digest(known, digest)
        is_previous = hmac.compare_digest(previous, digest)
        if entry is None or not (is_current or is_previous):
            raise InvalidApiKey(INCORRECT)
        now = time.time()
        entry.check(now)
        until = entry.key.previous_until
        if not is_current and (until is None or until <= now):
            raise InvalidApiKey("This API key has been rotated; use its new secret.")
        return entry.principal

    def find(self, principal_id: str) -> Principal | None:
        """The caller with this id, or None once its key has ended."""
        entry = self.entries.get(principal_id)
        if entry is None:
            return None
        try:
            entry.check(time.time())
        except InvalidApiKey:
            return None
        return entry.principal


NO_KEYS = Snapshot()
UNREADABLE = Snapshot(closed=True, readable=False)


def take_snapshot(db: sqlite3.Connection, last: Snapshot) -> Snapshot:
    """The keys of an open transaction; entries of ``last`` that still hold are kept.

    Raises sqlite3.Error.
    """
    found = db.execute("SELECT value FROM secrets WHERE name = 'cache_salt'").fetchone()
    salt: bytes = found[0]
    entries: dict[str, Entry] = {}
    # Parents come before their children.
    for row in db.execute(f"SELECT {COLUMNS} FROM keys ORDER BY position"):  # noqa: S608 - a constant
        entry = last.entries.get(row[0])
        parent_id = row[8]
        parent = entries.get(parent_id)
        unmoved = parent_id is None or parent is last.entries.get(parent_id)
        if entry is None or entry.row != row or not unmoved:
            entry = build_entry(row, parent, salt)
        entries[row[0]] = entry
    was_closed = last.closed and last.readable
    return Snapshot(MappingProxyType(entries), closed=was_closed or bool(entries))


def build_entry(row: Row, parent: Entry | None, salt: bytes) -> Entry:
    """A key within what its parent allows."""
    key = StoredKey.of(row)
    grant = key.grant if parent is None else meet(key.grant, parent.grant)
    owner = owner_of(key.tenant)
    # Nobody can work out another project's salt, and the store's own random part never leaves.
    cache_salt = hmac.new(salt, owner.encode(), hashlib.sha256).hexdigest()[:32]
    return Entry(
        row, key, grant, Principal(key.id, cache_salt, key.tenant, grant.rights, shares_as=owner)
    )


def owner_of(tenant: Tenant) -> str:
    """The name under which a project's objects are stored; no id of a key has a slash."""
    return f"{tenant.organisation}/{tenant.project}"
