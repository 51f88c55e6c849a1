"""Notices changes of stored keys made by anybody, within a second, in a thread of its own.

SQLite's ``data_version`` tells whether another connection has committed since it was last asked
(https://sqlite.org/pragma.html#pragma_data_version), so an unchanged store costs one look at a
file every half second. When the store cannot be read, the last snapshot stays in force.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing

from gateway.control.identity.snapshot import NO_KEYS, UNREADABLE, Snapshot, take_snapshot
from gateway.control.identity.store import KeyStore, KeyStoreUnavailable, connect, read_version

log = logging.getLogger("gateway.keys")

POLL_S = 0.5


class KeyWatch:
    """Keeps a snapshot of a store true.

    Args:
        publish: gets every new snapshot, in whatever thread it was taken.
    """

    def __init__(self, store: KeyStore, publish: Callable[[Snapshot], None]) -> None:
        self._store = store
        self._publish = publish
        self._snapshot = NO_KEYS
        self._looking = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._version = -1
        self._complained = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._watch, name="key-watch", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """End the thread; it is never in the middle of anything that matters."""
        self._stopping.set()

    def look(self) -> None:
        """Publish what has changed since the last look. Blocks on the disk; never raises."""
        with self._looking:
            try:
                self._look()
            except (OSError, sqlite3.Error, KeyStoreUnavailable) as error:
                self._forget()
                if not self._snapshot.closed:
                    # Keys may exist, so nobody is let in until it is known which.
                    self._set(UNREADABLE)
                self._complain(getattr(error, "cause", None) or str(error))

    def _watch(self) -> None:
        while not self._stopping.wait(POLL_S):
            self.look()
        with self._looking:
            self._forget()

    def _look(self) -> None:
        if not self._store.exists():
            if self._file is not None:
                self._forget()
                self._complain("the file is gone")
            return
        status = os.stat(self._store.path)
        if self._connection is None or self._file != (status.st_dev, status.st_ino):
            self._forget()
            self._connection = connect(self._store.path)
            self._file = (status.st_dev, status.st_ino)
        db = self._connection
        # Asked before the rows are read: what is committed in between shows at the next look.
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version == self._version:
            return
        db.execute("BEGIN")
        try:
            if read_version(db):
                self._set(take_snapshot(db, self._snapshot))
                self._store.known = True
        finally:
            db.rollback()
        self._version = version
        self._complained = False

    def _set(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._publish(snapshot)

    def _forget(self) -> None:
        """Begin anew with the file at the next look."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self._version = -1

    def _complain(self, cause: str) -> None:
        if self._complained:
            return
        self._complained = True
        log.warning(
            "the store of keys cannot be read: keys stay as they were last known",
            extra={"fields": {"database": str(self._store.path), "cause": cause}},
        )


def has_keys(store: KeyStore) -> bool:
    """Whether there are stored keys, ended ones included. Raises KeyStoreUnavailable."""
    if not store.exists():
        return False
    try:
        with closing(connect(store.path)) as db:
            return bool(read_version(db)) and bool(
                db.execute("SELECT EXISTS (SELECT 1 FROM keys)").fetchone()[0]
            )
    except sqlite3.Error as error:
        raise KeyStoreUnavailable(f"{store.path}: {error}") from None
