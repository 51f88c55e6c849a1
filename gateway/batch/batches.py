"""Batches and the results of their lines, in SQLite.

A result and the counts it changes are one transaction, so counts are true at all times and a
line that has a result is never run again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from gateway.batch.batch_metrics import BatchCounts
from gateway.batch.batch_rows import (
    ACTIVE,
    Batch,
    NewBatch,
    Result,
    create,
    fetch,
    now,
    put,
    select,
)
from gateway.batch.file_rows import StoredFile, insert, position_of
from gateway.errors import Conflict
from gateway.store.sqlite import Database

PAGE = """
    SELECT * FROM batches WHERE owner = :owner
    AND position < COALESCE(:after, 9223372036854775807) ORDER BY position DESC LIMIT :limit
"""
BEGIN_LINE = """
    INSERT INTO attempts VALUES (?, ?, 1)
    ON CONFLICT (batch, line) DO UPDATE SET begun = begun + 1 RETURNING begun
"""
END_LINE = "DELETE FROM attempts WHERE batch = ? AND line = ?"
COUNT = """
    UPDATE batches SET completed = completed + ?, failed = failed + ?,
        input_tokens = input_tokens + ?, cached_tokens = cached_tokens + ?,
        output_tokens = output_tokens + ?, reasoning_tokens = reasoning_tokens + ?
    WHERE position = ?
"""
FINISH = {
    "completed": "UPDATE batches SET status = 'completed', completed_at = ?, "
    "output_file_id = ?, error_file_id = ? WHERE position = ?",
    "cancelled": "UPDATE batches SET status = 'cancelled', cancelled_at = ?, "
    "output_file_id = ?, error_file_id = ? WHERE position = ?",
    "expired": "UPDATE batches SET status = 'expired', expired_at = ?, "
    "output_file_id = ?, error_file_id = ? WHERE position = ?",
}


class BatchStore:
    """All batches. Every method is one transaction and raises StorageUnavailable.

    Attributes:
        counts: of what was noted through this store.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.counts = BatchCounts()

    async def create(self, asked: NewBatch, source: StoredFile) -> Batch:
        """A new batch, to be validated. Raises InvalidRequest."""
        return await self._database.run(lambda db: create(db, asked, source))

    async def get(self, owner: str, batch_id: str) -> Batch:
        """An owner's batch. Raises ObjectNotFound."""
        return await self._database.run(lambda db: fetch(db, owner, batch_id))

    async def page(self, owner: str, after: str | None, limit: int) -> tuple[list[Batch], bool]:
        """A page, newest first, and whether more follow. Raises InvalidRequest."""

        def work(db: sqlite3.Connection) -> tuple[list[Batch], bool]:
            start = None if after is None else position_of(db, "batches", owner, after)
            values = {"owner": owner, "after": start, "limit": limit + 1}
            found = list(select(db, PAGE, values))
            return found[:limit], len(found) > limit

        return await self._database.run(work)

    async def cancel(self, owner: str, batch_id: str) -> Batch:
        """Have a batch stop. Raises ObjectNotFound, and Conflict for one that has ended."""

        def work(db: sqlite3.Connection) -> Batch:
            batch = fetch(db, owner, batch_id)
            if batch.status == "cancelling":
                return batch
            if batch.status not in ACTIVE:
                raise Conflict(f"Cannot cancel a batch with status '{batch.status}'.")
            db.execute(
                "UPDATE batches SET status = 'cancelling', cancelling_at = ? WHERE position = ?",
                (now(), batch.position),
            )
            return fetch(db, owner, batch_id)

        return await self._database.run(work)

    async def active(self) -> list[Batch]:
        """Every batch that is not finished, oldest first."""
        statement = (
            "SELECT * FROM batches WHERE status IN "
            "('validating', 'in_progress', 'finalizing', 'cancelling') ORDER BY position"
        )
        return await self._database.run(lambda db: list(select(db, statement, ())))

    async def begin(self, batch: Batch, total: int, model: str | None) -> None:
        """A validated batch goes to work, unless it has been cancelled meanwhile."""
        await self._database.run(
            lambda db: (
                db.execute(
                    "UPDATE batches SET status = 'in_progress', in_progress_at = ?, total = ?, "
                    "model = ? WHERE position = ? AND status = 'validating'",
                    (now(), total, model, batch.position),
                ).rowcount
            )
        )

    async def fail(self, batch: Batch, errors: Sequence[dict[str, Any]], total: int = 0) -> None:
        """A batch that cannot run."""

        def work(db: sqlite3.Connection) -> None:
            forget(db, batch)
            db.execute(
                "UPDATE batches SET status = 'failed', failed_at = ?, errors = ?, "
                "total = MAX(total, ?) WHERE position = ?",
                (now(), orjson.dumps(list(errors)).decode(), total, batch.position),
            )

        await self._database.run(work)
        self.counts.ended["failed"] += 1

    async def finalize(self, batch: Batch) -> None:
        """Every line has run."""
        await self._database.run(
            lambda db: (
                db.execute(
                    "UPDATE batches SET status = 'finalizing', finalizing_at = ? "
                    "WHERE position = ? AND status = 'in_progress'",
                    (now(), batch.position),
                ).rowcount
            )
        )

    async def begin_line(self, batch: Batch, line: int) -> int:
        """Note that a line begins to run; how often it has, this time included, in processes
        that did not end well."""

        def work(db: sqlite3.Connection) -> int:
            return int(db.execute(BEGIN_LINE, (batch.position, line)).fetchone()[0])

        return await self._database.run(work)

    async def forget_attempts(self) -> None:
        """The process ends well: nothing that was running is to blame for it."""
        await self._database.run(lambda db: db.execute("DELETE FROM attempts").rowcount)

    async def add_result(self, batch: Batch, result: Result) -> None:
        """Note a line's result and count it; the first one of a line stands."""

        def work(db: sqlite3.Connection) -> bool:
            db.execute(END_LINE, (batch.position, result.line))
            new = put(db, batch, result)
            if new:
                counted = (result.ok, not result.ok, *result.usage, batch.position)
                db.execute(COUNT, counted)
            return new

        if await self._database.run(work):
            self.counts.lines["completed" if result.ok else "failed"] += 1

    async def add_unrun(self, batch: Batch, results: Sequence[Result]) -> None:
        """Note lines that never ran; they count neither as completed nor as failed."""
        noted = await self._database.run(lambda db: sum(put(db, batch, one) for one in results))
        self.counts.lines["not_run"] += noted

    async def lines_done(self, batch: Batch) -> set[int]:
        """Numbers of the lines that have a result."""
        statement = "SELECT line FROM results WHERE batch = ?"
        return await self._database.run(
            lambda db: {row[0] for row in db.execute(statement, (batch.position,))}
        )

    async def results(self, batch: Batch, *, ok: bool, after: int, limit: int) -> list[Result]:
        """Results in the order of their lines, beginning behind line ``after``."""
        statement = (
            "SELECT line, ok, body FROM results WHERE batch = ? AND ok = ? AND line > ? "
            "ORDER BY line LIMIT ?"
        )
        values = (batch.position, ok, after, limit)
        return await self._database.run(
            lambda db: [
                Result(row[0], bool(row[1]), row[2]) for row in db.execute(statement, values)
            ]
        )

    async def finish(
        self, batch: Batch, status: str, output: StoredFile | None, errors: StoredFile | None
    ) -> None:
        """A batch and its files become final together; ``status`` is a key of FINISH."""

        def work(db: sqlite3.Connection) -> None:
            for stored in (output, errors):
                if stored is not None:
                    insert(db, stored)
            ids = (output.id if output else None, errors.id if errors else None)
            db.execute(FINISH[status], (now(), *ids, batch.position))
            forget(db, batch)

        await self._database.run(work)
        self.counts.ended[status] += 1


def forget(db: sqlite3.Connection, batch: Batch) -> None:
    """Remove what only an unfinished batch needs."""
    db.execute("DELETE FROM results WHERE batch = ?", (batch.position,))
    db.execute("DELETE FROM attempts WHERE batch = ?", (batch.position,))
