"""The ledger in one SQLite file, for a gateway that has no PostgreSQL.

Records are handed over as one JSON array and taken apart by SQLite itself, so that a batch costs
the process little of the interpreter that serves requests.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gateway.control.ledger.record import FIELDS
from gateway.control.ledger.report import SUMS, Query, Row, named, statement
from gateway.control.ledger.store import RecordRefused, StoreUnavailable
from gateway.store.sqlite import make_private_folder, split_script

BUSY_TIMEOUT_S = 5.0
PURGE_ROWS = 2000

RECORDS = """
CREATE TABLE usage_records (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    at REAL NOT NULL,
    source TEXT NOT NULL,
    key_id TEXT NOT NULL,
    organisation TEXT NOT NULL,
    project TEXT NOT NULL,
    route TEXT NOT NULL,
    model TEXT NOT NULL,
    target TEXT NOT NULL,
    outcome TEXT NOT NULL,
    status INTEGER,
    error_code TEXT,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    usd REAL NOT NULL,
    priced TEXT NOT NULL,
    queue_ms REAL,
    engine_queue_ms REAL,
    ttft_ms REAL,
    total_ms REAL NOT NULL,
    degraded TEXT,
    stream INTEGER NOT NULL,
    cache_hit INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    day TEXT NOT NULL GENERATED ALWAYS AS (date(at, 'unixepoch')) VIRTUAL
);
CREATE INDEX usage_records_day ON usage_records (day);
CREATE TABLE usage_daily (
    day TEXT NOT NULL,
    key_id TEXT NOT NULL,
    organisation TEXT NOT NULL,
    project TEXT NOT NULL,
    model TEXT NOT NULL,
    route TEXT NOT NULL,
    requests INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    rejected INTEGER NOT NULL,
    shed INTEGER NOT NULL,
    cache_hits INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    usd REAL NOT NULL,
    PRIMARY KEY (day, key_id, organisation, project, model, route)
) WITHOUT ROWID;
"""
MIGRATIONS = (RECORDS,)

# Names in these come from the tables above, values from the records' JSON.
EXTRACTED = ", ".join(f"json_extract(value, '$.{name}')" for name in FIELDS)
INSERT = (
    f"INSERT INTO usage_records ({', '.join(FIELDS)}) SELECT {EXTRACTED} "  # noqa: S608
    "FROM json_each(:batch) WHERE true ON CONFLICT (id) DO NOTHING"
)
KEYS = "day, key_id, organisation, project, model, route"
ADD_TO_DAY = (
    f"INSERT INTO usage_daily ({KEYS}, {', '.join(SUMS)}, usd) SELECT {KEYS}, count(*), "  # noqa: S608
    "sum(outcome = 'completed'), sum(outcome = 'cancelled'), sum(outcome = 'failed'), "
    "sum(outcome = 'rejected'), sum(outcome = 'shed'), sum(cache_hit), sum(prompt_tokens), "
    "sum(cached_tokens), sum(completion_tokens), sum(reasoning_tokens), sum(usd) "
    f"FROM usage_records WHERE number > :last GROUP BY {KEYS} ON CONFLICT ({KEYS}) DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in (*SUMS, "usd"))
)
PURGE = (
    "DELETE FROM usage_records WHERE number IN "
    "(SELECT number FROM usage_records WHERE day < :before LIMIT :most)"
)


class SqliteStore:
    """A ``Store`` in a file. Several processes may share it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def prepare(self) -> None:
        """Open the file, made with mode 0600, and bring it to this version."""
        if self._connection is not None:
            return
        try:
            make_private_folder(self._path.parent)
            # SQLite gives its side files the rights of the main one.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            connection = sqlite3.connect(
                self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            try:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                migrate(connection)
            except BaseException:
                connection.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"{self._path.name}: {error}") from None
        self._connection = connection

    def add(self, payloads: Sequence[bytes]) -> None:
        """See ``Store.add``."""
        self.prepare()
        assert self._connection is not None
        connection = self._connection
        batch = (b"[" + b",".join(payloads) + b"]").decode()
        try:
            with transaction(connection):
                newest = "SELECT coalesce(max(number), 0) FROM usage_records"
                (last,) = connection.execute(newest).fetchone()
                connection.execute(INSERT, {"batch": batch})
                connection.execute(ADD_TO_DAY, {"last": last})
        except (sqlite3.IntegrityError, sqlite3.DataError) as error:
            raise RecordRefused(str(error)) from None
        except sqlite3.Error as error:
            self.close()
            raise StoreUnavailable(f"{self._path.name}: {error}") from None

    def purge(self, records_before: str, days_before: str) -> None:
        """See ``Store.purge``. In pieces, so that others get at the file in between."""
        self.prepare()
        assert self._connection is not None
        values = {"before": records_before, "most": PURGE_ROWS}
        try:
            while self._connection.execute(PURGE, values).rowcount == PURGE_ROWS:
                pass
            self._connection.execute("DELETE FROM usage_daily WHERE day < ?", (days_before,))
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self._path.name}: {error}") from None

    def report(self, query: Query) -> list[Row]:
        """See ``Store.report``. Nothing at all where no gateway has been yet."""
        if not self._path.exists():
            return []
        text, values = statement(query)
        try:
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(uri, timeout=BUSY_TIMEOUT_S, uri=True)) as connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                rows = connection.execute(text, values).fetchall() if version else []
                return named(query, rows)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"{self._path.name}: {error}") from None

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class transaction:  # noqa: N801 - used as a statement
    """Everything in the block, or nothing. The lock is taken at once, so it cannot deadlock."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._connection.execute("COMMIT")
        finally:
            self._connection.rollback()  # nothing, once it has been committed


def migrate(connection: sqlite3.Connection) -> None:
    """Run the scripts that the file has not seen; how many it has is its ``user_version``."""
    with transaction(connection):
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise sqlite3.DatabaseError("the file was written by a newer llm-gateway")
        for script in MIGRATIONS[version:]:
            for command in split_script(script):
                connection.execute(command)
        connection.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
