"""Stored responses: bounded per tenant and in total, by count, size and age.

The least recently used go first; a response is used when it is read or continued, so a running
conversation keeps all of its links. A tenant sees its own responses only.
"""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.store.instance import Instance
from gateway.store.responses_sql import DROP_OLDEST, DROP_OLDEST_OF_TENANT, MIGRATIONS
from gateway.store.sqlite import Database

# What a row costs beside its JSON.
ROW_BYTES = 512
READ_TIMEOUT_S = 5.0
EXPIRED_PER_WRITE = 64
RUNNING = ("queued", "in_progress")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is kept: responses and bytes per tenant, bytes in total, seconds unused."""

    count: int
    bytes: int
    total_bytes: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Record:
    """A stored response.

    Attributes:
        body: the response object as it is answered.
        input: the items that this request brought, without those of earlier ones.
        events: server-sent events of a background stream, deflated, or None.
    """

    body: dict[str, Any]
    input: list[dict[str, Any]]
    events: bytes | None = None

    @property
    def id(self) -> str:
        """The response's id."""
        return str(self.body["id"])

    @property
    def running(self) -> bool:
        """Whether it is still being worked on."""
        return self.body["status"] in RUNNING


class ResponseStore:
    """The table of responses in one SQLite file below ``folder``; None keeps it in memory.

    Every method raises StorageUnavailable when the database cannot answer in time.
    """

    def __init__(self, folder: Path | None, bounds: Bounds) -> None:
        self._bounds = bounds
        self._instance = Instance(folder / "instances" if folder is not None else None)
        path = folder / "responses.sqlite" if folder is not None else None
        self._database = Database(path, MIGRATIONS)
        self._recovered = False

    async def put(self, tenant: str, record: Record, timeout_s: float | None = None) -> bool:
        """Add or replace a response; whether it was kept.

        Not kept is what alone exceeds a tenant's bytes, and the end of a response that was
        deleted or cancelled from elsewhere in the meantime: see ``finish``.
        """
        body, items, size = packed(record)
        if size > self._bounds.bytes or not self._bounds.count:
            return False

        def work(db: sqlite3.Connection) -> bool:
            self._begin(db)
            self._insert(db, tenant, record, body, items, size)
            self._evict(db, tenant, record.id)
            return True

        return await self._database.run(work, timeout_s)

    async def finish(self, tenant: str, record: Record) -> bool:
        """Replace a running response; whether it was still there and running."""
        body, items, size = packed(record)

        def work(db: sqlite3.Connection) -> bool:
            self._begin(db)
            row = db.execute(
                "SELECT status FROM responses WHERE id = ? AND tenant = ?", (record.id, tenant)
            ).fetchone()
            if row is None or row[0] not in RUNNING:
                return False
            if size > self._bounds.bytes:
                db.execute("DELETE FROM responses WHERE id = ?", (record.id,))
                return False
            self._insert(db, tenant, record, body, items, size)
            self._evict(db, tenant, record.id)
            return True

        return await self._database.run(work)

    async def get(self, tenant: str, response_id: str) -> Record | None:
        """One response; one whose server has gone is failed from now on."""

        def work(db: sqlite3.Connection) -> Record | None:
            self._begin(db)
            row = self._use(db, tenant, response_id)
            return row[0] if row is not None else None

        return await self._database.run(work, READ_TIMEOUT_S)

    async def delete(self, tenant: str, response_id: str) -> bool:
        """Remove a response; whether there was one."""

        def work(db: sqlite3.Connection) -> bool:
            self._begin(db)
            found = db.execute(
                "DELETE FROM responses WHERE id = ? AND tenant = ?", (response_id, tenant)
            )
            return found.rowcount > 0

        return await self._database.run(work, READ_TIMEOUT_S)

    async def chain(
        self, tenant: str, response_id: str, most_links: int, most_bytes: int
    ) -> list[Record]:
        """A response and all that came before it, oldest first.

        Shorter than the conversation when a link is gone: then the first record still names
        a previous one. Longer by one than ``most_links``, or over ``most_bytes`` with its
        last record, when it exceeds them.
        """

        def work(db: sqlite3.Connection) -> list[Record]:
            self._begin(db)
            found: list[Record] = []
            size = 0
            wanted: str | None = response_id
            while wanted is not None and len(found) <= most_links and size <= most_bytes:
                row = self._use(db, tenant, wanted)
                if row is None:
                    break
                record, bytes_of_it = row
                found.append(record)
                size += bytes_of_it
                wanted = record.body["previous_response_id"]
            return found[::-1]

        return await self._database.run(work, READ_TIMEOUT_S)

    async def items(self, tenant: str, ids: set[str]) -> dict[str, dict[str, Any]]:
        """Input and output items by id; those that are not stored are left out."""

        def work(db: sqlite3.Connection) -> dict[str, dict[str, Any]]:
            self._begin(db)
            found: dict[str, dict[str, Any]] = {}
            for wanted in ids:
                if wanted in found:
                    continue
                row = db.execute(
                    "SELECT response FROM items WHERE tenant = ? AND item = ?", (tenant, wanted)
                ).fetchone()
                if row is None:
                    continue
                used = self._use(db, tenant, row[0])
                if used is not None:
                    every = [*used[0].input, *used[0].body["output"]]
                    found |= {item["id"]: item for item in every if item["id"] in ids}
            return found

        return await self._database.run(work, READ_TIMEOUT_S)

    async def close(self) -> None:
        """Finish what waits, close the file and count as gone. Idempotent."""
        await self._database.close()
        self._instance.release()

    def _begin(self, db: sqlite3.Connection) -> None:
        """Once per process, end what earlier ones left running; always, drop what is too old."""
        if not self._recovered:
            if not self._database.in_memory:
                try:
                    self._instance.hold()
                except OSError as error:
                    raise sqlite3.OperationalError(f"no lock file: {error.strerror}") from None
            for (orphan,) in db.execute(
                "SELECT id FROM responses WHERE status IN ('queued', 'in_progress')"
            ).fetchall():
                self._end_orphan(db, orphan)
            self._recovered = True
        db.execute(
            "DELETE FROM responses WHERE id IN "
            "(SELECT id FROM responses WHERE used < ? ORDER BY used LIMIT ?)",
            (time.time() - self._bounds.age_s, EXPIRED_PER_WRITE),
        )

    def _end_orphan(self, db: sqlite3.Connection, response_id: str) -> None:
        owner, body = db.execute(
            "SELECT owner, body FROM responses WHERE id = ?", (response_id,)
        ).fetchone()
        if not self._instance.alive(owner):
            ended = orjson.dumps(orphaned(orjson.loads(body)))
            db.execute(
                "UPDATE responses SET status = 'failed', body = ? WHERE id = ?",
                (ended, response_id),
            )

    def _use(self, db: sqlite3.Connection, tenant: str, wanted: str) -> tuple[Record, int] | None:
        """A record and its size, counted as used now."""
        now = time.time()
        row = db.execute(
            "SELECT status FROM responses WHERE id = ? AND tenant = ?", (wanted, tenant)
        ).fetchone()
        if row is None:
            return None
        if row[0] in RUNNING:
            self._end_orphan(db, wanted)
        db.execute("UPDATE responses SET used = ? WHERE id = ?", (now, wanted))
        body, items, events, size = db.execute(
            "SELECT body, input, events, size FROM responses WHERE id = ?", (wanted,)
        ).fetchone()
        return Record(orjson.loads(body), orjson.loads(items), events), size

    def _insert(
        self,
        db: sqlite3.Connection,
        tenant: str,
        record: Record,
        body: bytes,
        items: bytes,
        size: int,
    ) -> None:
        db.execute("DELETE FROM responses WHERE id = ?", (record.id,))
        db.execute(
            "INSERT INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.id,
                tenant,
                time.time(),
                record.body["status"],
                self._instance.id,
                record.body["previous_response_id"],
                size,
                body,
                items,
                record.events,
            ),
        )
        db.executemany(
            "INSERT OR IGNORE INTO items VALUES (?, ?, ?)",
            [(tenant, item["id"], record.id) for item in (*record.input, *record.body["output"])],
        )

    def _evict(self, db: sqlite3.Connection, tenant: str, kept: str) -> None:
        """Drop the least recently used until everything is within its bounds."""
        bounds = self._bounds
        while True:
            row = db.execute(
                "SELECT count, bytes FROM tenants WHERE tenant = ?", (tenant,)
            ).fetchone()
            if row is None or (row[0] <= bounds.count and row[1] <= bounds.bytes):
                break
            if not db.execute(DROP_OLDEST_OF_TENANT, (kept, tenant)).rowcount:
                break
        while True:
            (total,) = db.execute("SELECT SUM(bytes) FROM tenants").fetchone()
            if total is None or total <= bounds.total_bytes:
                break
            if not db.execute(DROP_OLDEST, (kept,)).rowcount:
                break
        db.execute("PRAGMA incremental_vacuum(64)").fetchall()


def packed(record: Record) -> tuple[bytes, bytes, int]:
    """The JSON of a record's parts, and what storing it counts."""
    body, items = orjson.dumps(record.body), orjson.dumps(record.input)
    events = len(record.events) if record.events is not None else 0
    return body, items, len(body) + len(items) + events + ROW_BYTES


def orphaned(body: dict[str, Any]) -> dict[str, Any]:
    """The response object of a run whose server has gone."""
    error = {"code": "server_error", "message": "The server stopped before the response ended."}
    return {**body, "status": "failed", "error": error}
