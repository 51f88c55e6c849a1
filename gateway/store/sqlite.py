"""One SQLite file, one thread: transactions that never run on the event loop.

WAL mode, so that several gateways on one machine may share a file. A commit survives the end
of the process; the last ones may be lost when the machine loses power (``synchronous=NORMAL``,
https://sqlite.org/wal.html). Where the file cannot be used, an empty database in memory takes
its place, with one warning, and serving goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gateway.errors import StorageUnavailable

log = logging.getLogger("gateway.store")

T = TypeVar("T")

BUSY_TIMEOUT_S = 5.0
MOST_PENDING = 1024
CLOSE_TIMEOUT_S = 5.0


class Database:
    """A database that is opened at its first use. Owned by one event loop.

    Args:
        path: the file; its folder is made with mode 0700. None keeps everything in memory.
        migrations: SQL scripts in order, each run once and never changed afterwards; how many
            have been run is the file's ``user_version``.

    Attributes:
        in_memory: nothing outlives this process; known after the first use.
    """

    def __init__(self, path: Path | None, migrations: Sequence[str]) -> None:
        self._path = path
        self._migrations = tuple(migrations)
        self._connection: sqlite3.Connection | None = None
        self._pending = 0
        self._closed = False
        self.in_memory = path is None
        name = path.stem if path is not None else "memory"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"sqlite-{name}")

    async def run(
        self, work: Callable[[sqlite3.Connection], T], timeout_s: float | None = None
    ) -> T:
        """The result of ``work`` in the database's thread, as one transaction.

        An exception of ``work`` rolls everything back and is raised here. Work that has begun
        goes on to its end when the caller is cancelled or the time is over. Raises
        StorageUnavailable for every fault of SQLite, when too much work waits, and after
        ``timeout_s``.
        """
        if self._closed or self._pending >= MOST_PENDING:
            raise unavailable()
        self._pending += 1
        future = asyncio.wrap_future(self._thread.submit(self._transact, work))
        future.add_done_callback(self._note_done)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            log.warning("the database took too long", extra={"fields": {"database": self._name}})
            raise unavailable() from None
        except sqlite3.Error as error:
            log.error(
                "the database failed",
                extra={"fields": {"database": self._name, "cause": str(error)}},
            )
            raise unavailable() from None

    async def close(self) -> None:
        """Finish the work that waits and close the file, within a few seconds. Idempotent."""
        if self._closed:
            return
        self._closed = True
        closing = asyncio.wrap_future(self._thread.submit(self._close))
        self._thread.shutdown(wait=False)
        await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_S)

    @property
    def _name(self) -> str:
        return self._path.name if self._path is not None else "memory"

    def _note_done(self, future: asyncio.Future[T]) -> None:
        self._pending -= 1
        if not future.cancelled():
            future.exception()  # seen, also when nobody waits for it any more

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._open()
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
        except BaseException:
            connection.rollback()
            raise
        connection.commit()
        return result

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._open_file() or self._prepare(":memory:")
        return self._connection

    def _open_file(self) -> sqlite3.Connection | None:
        if self._path is None:
            return None
        try:
            make_private_folder(self._path.parent)
            # SQLite gives its side files the rights of the main one.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            return self._prepare(str(self._path))
        except (OSError, sqlite3.Error) as error:
            self.in_memory = True
            log.warning(
                "DATA_DIR cannot be used: what is stored is kept in memory and lost at the end; "
                "set DATA_DIR to a folder that this server may write",
                extra={"fields": {"database": str(self._path), "cause": str(error)}},
            )
            return None

    def _prepare(self, path: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.execute("PRAGMA secure_delete=ON")
            connection.execute("BEGIN IMMEDIATE")
            self._migrate(connection)
            connection.commit()
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(self._migrations):
            raise sqlite3.DatabaseError("the file was written by a newer llm-gateway")
        for script in self._migrations[version:]:
            # executescript() would commit, and half a migration could stay behind.
            for statement in split_script(script):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(self._migrations)}")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def split_script(script: str) -> list[str]:
    """The statements of an SQL script."""
    statements = []
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            statements.append(statement)
            statement = ""
    if statement.strip():
        raise ValueError("a migration ends in the middle of a statement")
    return statements


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it, for this user only. Raises OSError."""
    # mkdir(parents=True) would give the mode to the last one only.
    if not folder.parent.exists():
        make_private_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)


def unavailable() -> StorageUnavailable:
    """The error for a store that does not answer."""
    return StorageUnavailable("The server's storage is not available. Please retry shortly.")
