"""The ledger in PostgreSQL, shared by any number of gateways.

Records are handed over as one JSON array and taken apart by PostgreSQL: one statement and one
round trip per batch, whatever its size, and little work in this process.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, SQLAlchemyError

from gateway.control.ledger.record import FIELDS
from gateway.control.ledger.report import SUMS, Query, Row, named, statement
from gateway.control.ledger.store import RecordRefused, StoreUnavailable

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 15_000
LOCK_TIMEOUT_MS = 5_000
# After this long without a sign of life a connection is given up.
SILENCE_MS = 10_000
POOL = 2
PURGE_ROWS = 2000
# Any number, as long as every version of the gateway takes the same: one migrates at a time.
MIGRATION_LOCK = 7_310_466_201

TYPES = {
    "at": "double precision",
    "status": "integer",
    "prompt_tokens": "bigint",
    "cached_tokens": "bigint",
    "completion_tokens": "bigint",
    "reasoning_tokens": "bigint",
    "usd": "double precision",
    "queue_ms": "double precision",
    "engine_queue_ms": "double precision",
    "ttft_ms": "double precision",
    "total_ms": "double precision",
    "stream": "boolean",
    "cache_hit": "boolean",
}
KEYS = "day, key_id, organisation, project, model, route"
KINDS = ("completed", "cancelled", "failed", "rejected", "shed")
TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")

# Names in these come from the tables above, values from the records' JSON. Records and days are
# written in a fixed order, so that two gateways never wait for each other.
ADD = text(
    f"""
WITH batch AS (
    SELECT * FROM jsonb_to_recordset(CAST(:batch AS jsonb))
    AS record ({", ".join(f"{name} {TYPES.get(name, 'text')}" for name in FIELDS)})
), fresh AS (
    INSERT INTO usage_records (day, {", ".join(FIELDS)})
    SELECT to_char(to_timestamp(at) AT TIME ZONE 'UTC', 'YYYY-MM-DD'),
        {", ".join("to_timestamp(at)" if name == "at" else name for name in FIELDS)}
    FROM batch ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING *
)
INSERT INTO usage_daily AS known ({KEYS}, {", ".join(SUMS)}, usd)
SELECT {KEYS}, count(*),
    {", ".join(f"count(*) FILTER (WHERE outcome = '{kind}')" for kind in KINDS)},
    count(*) FILTER (WHERE cache_hit),
    {", ".join(f"sum({name})" for name in TOKENS)},
    sum(usd)
FROM fresh GROUP BY {KEYS} ORDER BY {KEYS}
ON CONFLICT ({KEYS}) DO UPDATE SET
    {", ".join(f"{name} = known.{name} + excluded.{name}" for name in (*SUMS, "usd"))}
"""  # noqa: S608
)
# For this transaction only, so that it works behind a pooler as well.
TIMEOUTS = text(
    f"SELECT set_config('statement_timeout', '{STATEMENT_TIMEOUT_MS}', true), "
    f"set_config('lock_timeout', '{LOCK_TIMEOUT_MS}', true)"
)
PURGE = text(
    "DELETE FROM usage_records WHERE id IN "
    "(SELECT id FROM usage_records WHERE day < :before LIMIT :most)"
)
PURGE_DAYS = text("DELETE FROM usage_daily WHERE day < :before")


class PostgresStore:
    """A ``Store`` behind ``postgresql://...``. Raises ValueError for a URL that is none."""

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url).set(drivername="postgresql+psycopg")
        except ArgumentError:
            raise ValueError("it is not a database URL") from None
        self._prepared = False
        self._engine = create_engine(
            parsed,
            pool_size=POOL,
            max_overflow=POOL,
            pool_timeout=CONNECT_TIMEOUT_S,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={
                "application_name": "llm-gateway",
                "connect_timeout": CONNECT_TIMEOUT_S,
                "tcp_user_timeout": SILENCE_MS,
                # Poolers such as PgBouncer may give every transaction another connection.
                "prepare_threshold": None,
            },
        )
        # It would tell about every start at level info.
        logging.getLogger("alembic").setLevel(logging.WARNING)

    def prepare(self) -> None:
        """See ``Store.prepare``."""
        if self._prepared:
            return
        config = Config()
        folder = Path(__file__).parent / "migrations"
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        with self._transaction() as connection:
            lock = text("SELECT pg_advisory_xact_lock(:number)")
            connection.execute(lock, {"number": MIGRATION_LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        self._prepared = True

    def add(self, payloads: Sequence[bytes]) -> None:
        """See ``Store.add``."""
        self.prepare()
        with self._transaction() as connection:
            connection.execute(ADD, {"batch": (b"[" + b",".join(payloads) + b"]").decode()})

    def purge(self, records_before: str, days_before: str) -> None:
        """See ``Store.purge``. In pieces, so that no lock is held for long."""
        self.prepare()
        values = {"before": records_before, "most": PURGE_ROWS}
        deleted = PURGE_ROWS
        while deleted == PURGE_ROWS:
            with self._transaction() as connection:
                deleted = connection.execute(PURGE, values).rowcount
        with self._transaction() as connection:
            connection.execute(PURGE_DAYS, {"before": days_before})

    def report(self, query: Query) -> list[Row]:
        """See ``Store.report``."""
        sql, values = statement(query)
        with self._transaction() as connection:
            return named(query, [tuple(row) for row in connection.execute(text(sql), values)])

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Everything in the block, or nothing."""
        try:
            with self._engine.begin() as connection:
                connection.execute(TIMEOUTS)
                yield connection
        except (DataError, IntegrityError) as error:
            raise RecordRefused(told(error)) from None
        except SQLAlchemyError as error:
            raise StoreUnavailable(told(error)) from None
        except CommandError as error:
            raise StoreUnavailable(f"its tables are of another version: {error}") from None


def told(error: SQLAlchemyError) -> str:
    """What PostgreSQL says, in one line and without the statement, which holds records."""
    cause = getattr(error, "orig", None)
    said = str(cause if cause is not None else type(error).__name__)
    code = getattr(cause, "sqlstate", None)
    return f"{said.splitlines()[0] if said else 'no answer'}{f' ({code})' if code else ''}"
