"""The rows of files, and what an owner has stored. All functions run within a transaction."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from typing import Any, Literal

from gateway.errors import InvalidRequest, ObjectNotFound

Order = Literal["asc", "desc"]

INSERT = """
    INSERT INTO files (id, owner, purpose, filename, bytes, created_at, expires_at)
    VALUES (?, ?, ?, ?, ?, ?, ?)
"""
FIND = """
    SELECT id, owner, purpose, filename, bytes, created_at, expires_at FROM files
    WHERE id = ? AND owner = ? AND (expires_at IS NULL OR expires_at > ?)
"""
NEWEST_FIRST = """
    SELECT id, owner, purpose, filename, bytes, created_at, expires_at FROM files
    WHERE owner = :owner AND position < COALESCE(:after, 9223372036854775807)
    AND (:purpose IS NULL OR purpose = :purpose)
    AND (expires_at IS NULL OR expires_at > :now)
    ORDER BY position DESC LIMIT :limit
"""
OLDEST_FIRST = """
    SELECT id, owner, purpose, filename, bytes, created_at, expires_at FROM files
    WHERE owner = :owner AND position > COALESCE(:after, 0)
    AND (:purpose IS NULL OR purpose = :purpose)
    AND (expires_at IS NULL OR expires_at > :now)
    ORDER BY position LIMIT :limit
"""
POSITION = {
    "files": "SELECT position FROM files WHERE id = ? AND owner = ?",
    "batches": "SELECT position FROM batches WHERE id = ? AND owner = ?",
}


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One row. Times are Unix seconds."""

    id: str
    owner: str
    purpose: str
    filename: str
    bytes: int
    created_at: int
    expires_at: int | None

    def card(self) -> dict[str, Any]:
        """The file as the API shows it."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


def not_found(file_id: str) -> ObjectNotFound:
    """The error for a file that this owner does not have."""
    return ObjectNotFound(f"No such File object: {file_id[:64]}", param="id")


def insert(db: sqlite3.Connection, stored: StoredFile) -> None:
    """Make the row of a file."""
    row = (
        stored.id,
        stored.owner,
        stored.purpose,
        stored.filename,
        stored.bytes,
        stored.created_at,
        stored.expires_at,
    )
    db.execute(INSERT, row)


def find(db: sqlite3.Connection, owner: str, file_id: str) -> StoredFile:
    """An owner's file. Raises ObjectNotFound."""
    row = db.execute(FIND, (file_id, owner, int(time.time()))).fetchone()
    if row is None:
        raise not_found(file_id)
    return StoredFile(*row)


def select_page(
    db: sqlite3.Connection,
    owner: str,
    after: str | None,
    limit: int,
    order: Order,
    purpose: str | None,
) -> tuple[list[StoredFile], bool]:
    """See FileStore.page."""
    values = {
        "owner": owner,
        "after": None if after is None else position_of(db, "files", owner, after),
        "purpose": purpose,
        "now": int(time.time()),
        "limit": limit + 1,
    }
    statement = NEWEST_FIRST if order == "desc" else OLDEST_FIRST
    rows = db.execute(statement, values).fetchall()
    return [StoredFile(*row) for row in rows[:limit]], len(rows) > limit


def position_of(db: sqlite3.Connection, table: str, owner: str, after: str) -> int:
    """Where a page begins. Raises InvalidRequest."""
    row = db.execute(POSITION[table], (after, owner)).fetchone()
    if row is None:
        raise InvalidRequest("Invalid 'after': no such object.", param="after")
    return int(row[0])


def usage_of(db: sqlite3.Connection, owner: str) -> tuple[int, int]:
    """Bytes and number of an owner's files; inputs of running batches count once deleted too."""
    size, count = db.execute(
        "SELECT COALESCE(SUM(bytes), 0), COUNT(*) FROM files WHERE owner = ?", (owner,)
    ).fetchone()
    (kept,) = db.execute(
        "SELECT COALESCE(SUM(input_bytes), 0) FROM batches WHERE owner = ? AND status IN "
        "('validating', 'in_progress', 'finalizing', 'cancelling') "
        "AND input_file_id NOT IN (SELECT id FROM files)",
        (owner,),
    ).fetchone()
    return int(size) + int(kept), int(count)
