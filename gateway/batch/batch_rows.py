"""The rows of batches. All functions run within a transaction."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.batch.file_rows import StoredFile
from gateway.errors import InvalidRequest, ObjectNotFound

ACTIVE = ("validating", "in_progress", "finalizing", "cancelling")
MOST_ACTIVE = 64
TIMES = (
    "created_at",
    "in_progress_at",
    "expires_at",
    "finalizing_at",
    "completed_at",
    "failed_at",
    "expired_at",
    "cancelling_at",
    "cancelled_at",
)

INSERT = """
    INSERT INTO batches (id, owner, status, endpoint, input_file_id, input_bytes,
        completion_window, metadata, output_lifetime_s, created_at, expires_at, key)
    VALUES (?, ?, 'validating', ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True, slots=True)
class NewBatch:
    """What a caller asks for, and the id it gets. ``key`` is the id of the caller's key."""

    batch_id: str
    owner: str
    key: str
    endpoint: str
    input_file_id: str
    completion_window: str
    window_s: int
    metadata: dict[str, str] | None
    output_lifetime_s: int


@dataclass(frozen=True, slots=True)
class Batch:
    """One row. ``times`` holds those of TIMES that have come."""

    position: int
    id: str
    owner: str
    key: str
    status: str
    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: dict[str, str] | None
    output_lifetime_s: int
    model: str | None
    errors: list[dict[str, Any]] | None
    output_file_id: str | None
    error_file_id: str | None
    times: dict[str, int | None]
    counts: dict[str, int]
    usage: tuple[int, int, int, int]

    @property
    def expires_at(self) -> int:
        """When what has not run by then is given up, in Unix seconds."""
        return self.times["expires_at"] or 0

    def card(self) -> dict[str, Any]:
        """The batch as the API shows it."""
        prompt, cached, output, reasoning = self.usage
        errors = None if self.errors is None else {"object": "list", "data": self.errors}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": errors,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            **self.times,
            "request_counts": self.counts,
            "usage": {
                "input_tokens": prompt,
                "input_tokens_details": {"cached_tokens": cached},
                "output_tokens": output,
                "output_tokens_details": {"reasoning_tokens": reasoning},
                "total_tokens": prompt + output,
            },
            "metadata": self.metadata,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one line.

    Attributes:
        line: number in the input file, from 1.
        ok: whether the status was 200.
        body: the line of the output or the error file, without its line break.
        usage: tokens: input, of these cached, output, of these reasoning.
    """

    line: int
    ok: bool
    body: bytes
    usage: tuple[int, int, int, int] = (0, 0, 0, 0)


def now() -> int:
    """Unix seconds."""
    return int(time.time())


def create(db: sqlite3.Connection, asked: NewBatch, source: StoredFile) -> Batch:
    """See BatchStore.create."""
    (active,) = db.execute(
        "SELECT COUNT(*) FROM batches WHERE owner = ? AND status IN "
        "('validating', 'in_progress', 'finalizing', 'cancelling')",
        (asked.owner,),
    ).fetchone()
    if active >= MOST_ACTIVE:
        raise InvalidRequest(
            f"You have {active} unfinished batches; wait for one to end or cancel one.",
            code="too_many_batches",
        )
    if source.purpose != "batch":
        raise InvalidRequest(
            f"Invalid 'input_file_id': expected a file of purpose 'batch', but it is "
            f"'{source.purpose}'.",
            param="input_file_id",
        )
    created = now()
    metadata = None if asked.metadata is None else orjson.dumps(asked.metadata).decode()
    row = (
        asked.batch_id,
        asked.owner,
        asked.endpoint,
        asked.input_file_id,
        source.bytes,
        asked.completion_window,
        metadata,
        asked.output_lifetime_s,
        created,
        created + asked.window_s,
        asked.key,
    )
    db.execute(INSERT, row)
    return fetch(db, asked.owner, asked.batch_id)


def new_batch_id() -> str:
    """An id that cannot be guessed and is safe as a file name."""
    return f"batch_{os.urandom(12).hex()}"


def fetch(db: sqlite3.Connection, owner: str, batch_id: str) -> Batch:
    """An owner's batch. Raises ObjectNotFound."""
    statement = "SELECT * FROM batches WHERE id = ? AND owner = ?"
    for batch in select(db, statement, (batch_id, owner)):
        return batch
    raise ObjectNotFound(f"No batch found with id '{batch_id[:64]}'.", param="id")


def put(db: sqlite3.Connection, batch: Batch, result: Result) -> bool:
    """Whether the result is the first one of its line."""
    row = (batch.position, result.line, result.ok, result.body)
    return db.execute("INSERT OR IGNORE INTO results VALUES (?, ?, ?, ?)", row).rowcount == 1


def select(db: sqlite3.Connection, statement: str, values: Any) -> Iterator[Batch]:
    """The batches that a statement finds."""
    cursor = db.execute(statement, values)
    names = [column[0] for column in cursor.description]
    for row in cursor.fetchall():
        found = dict(zip(names, row, strict=True))
        yield Batch(
            position=found["position"],
            id=found["id"],
            owner=found["owner"],
            key=found["key"],
            status=found["status"],
            endpoint=found["endpoint"],
            input_file_id=found["input_file_id"],
            completion_window=found["completion_window"],
            metadata=orjson.loads(found["metadata"]) if found["metadata"] else None,
            output_lifetime_s=found["output_lifetime_s"],
            model=found["model"],
            errors=orjson.loads(found["errors"]) if found["errors"] else None,
            output_file_id=found["output_file_id"],
            error_file_id=found["error_file_id"],
            times={name: found[name] for name in TIMES},
            counts={name: found[name] for name in ("total", "completed", "failed")},
            usage=(
                found["input_tokens"],
                found["cached_tokens"],
                found["output_tokens"],
                found["reasoning_tokens"],
            ),
        )
