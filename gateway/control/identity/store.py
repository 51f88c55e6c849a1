"""The file of keys and the audit log: SQLite in DATA_DIR, a connection per change.

Changes are rare and come from several processes, so nothing is kept open; a file that was away
works again once it is back. A commit is on disk before it is reported, for a key that was
revoked must stay so after a loss of power.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

from gateway.control.identity.schema import FILE_NAME, MIGRATIONS
from gateway.control.identity.stored_key import COLUMNS, StoredKey, rights_to_json
from gateway.errors import StorageUnavailable
from gateway.store.sqlite import make_private_folder, split_script

BUSY_TIMEOUT_S = 5.0


class KeyStoreUnavailable(StorageUnavailable):
    """The file of keys cannot be used.

    Attributes:
        cause: why, for whoever runs the server; callers see a fixed text.
    """

    def __init__(self, cause: str) -> None:
        super().__init__("The server's store of keys is not available. Please retry shortly.")
        self.cause = cause


class KeyStore:
    """The file ``keys.sqlite`` in ``folder``. For any thread; every call blocks on the disk.

    Attributes:
        known: it has been there before, so that a new one is not begun in its place: its disk
            may only be away for a while.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self.known = False

    def exists(self) -> bool:
        """Whether there is a store. Raises KeyStoreUnavailable when that cannot be told."""
        try:
            os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise KeyStoreUnavailable(str(error)) from None
        return True

    @contextmanager
    def change(self) -> Iterator[sqlite3.Connection]:
        """One transaction that writes; made on the first use. Raises KeyStoreUnavailable."""
        if self.known and not self.exists():
            raise KeyStoreUnavailable(f"{self.path} is gone")
        try:
            self._make_file()
            with closing(connect(self.path)) as db:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                db.execute("PRAGMA foreign_keys=ON")
                db.execute("BEGIN IMMEDIATE")
                try:
                    migrate(db)
                    yield db
                except BaseException:
                    db.rollback()
                    raise
                db.commit()
                self.known = True
        except (OSError, sqlite3.Error) as error:
            raise KeyStoreUnavailable(f"{self.path}: {error}") from None

    def _make_file(self) -> None:
        # Closing a file takes away every lock that this process has on it, those of SQLite's
        # other connections too (https://sqlite.org/howtocorrupt.html), so an existing one is
        # not touched.
        if self.exists():
            return
        make_private_folder(self.path.parent)
        with suppress(FileExistsError):
            # SQLite gives its side files the rights of the main one.
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(self.path, flags, 0o600))

    @contextmanager
    def view(self) -> Iterator[sqlite3.Connection]:
        """One transaction that reads; makes no file. Raises KeyStoreUnavailable."""
        if not self.exists():
            with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
                migrate(db)
                yield db
            return
        try:
            with closing(connect(self.path)) as db:
                db.execute("BEGIN")
                check_version(db)
                yield db
        except (OSError, sqlite3.Error) as error:
            raise KeyStoreUnavailable(f"{self.path}: {error}") from None


def connect(path: Path) -> sqlite3.Connection:
    """A connection to a file that exists. Raises sqlite3.Error."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
    )


def migrate(db: sqlite3.Connection) -> None:
    """Bring the tables up to date, within a transaction. Raises sqlite3.Error."""
    version = read_version(db)
    for script in MIGRATIONS[version:]:
        for statement in split_script(script):
            db.execute(statement)
    if version < len(MIGRATIONS):
        db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")


def check_version(db: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError for a file without tables or with other ones."""
    if read_version(db) != len(MIGRATIONS):
        raise sqlite3.DatabaseError("the file has no tables of keys yet; create a key first")


def read_version(db: sqlite3.Connection) -> int:
    """How many migrations the file has seen. Raises sqlite3.DatabaseError."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise sqlite3.DatabaseError("the file was written by a newer llm-gateway")
    return version


def find_key(db: sqlite3.Connection, key_id: str) -> StoredKey | None:
    """One key, whatever has become of it."""
    row = db.execute(f"SELECT {COLUMNS} FROM keys WHERE id = ?", (key_id,)).fetchone()  # noqa: S608 - a constant
    return None if row is None else StoredKey.of(row)


def insert_key(db: sqlite3.Connection, key: StoredKey) -> None:
    """Add a key."""
    db.execute(
        f"INSERT INTO keys ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - a constant
        to_row(key),
    )


def replace_key(db: sqlite3.Connection, key: StoredKey) -> None:
    """Write what may change of a key."""
    db.execute(
        "UPDATE keys SET name = ?, digest = ?, previous_digest = ?, previous_until = ?, "
        "rights = ?, expires_at = ?, rotated_at = ?, revoked_at = ? WHERE id = ?",
        (
            key.name,
            key.digest,
            key.previous_digest,
            key.previous_until,
            pack_rights(key),
            key.expires_at,
            key.rotated_at,
            key.revoked_at,
            key.id,
        ),
    )


def select_keys(
    db: sqlite3.Connection,
    organisation: str | None,
    project: str | None,
    after: int | None,
    limit: int,
) -> list[StoredKey]:
    """Keys of an organisation and project, None being any, newest first."""
    rows = db.execute(
        f"SELECT {COLUMNS} FROM keys WHERE (:organisation IS NULL OR organisation = :organisation) "  # noqa: S608 - a constant
        "AND (:project IS NULL OR project = :project) "
        "AND (:after IS NULL OR position < :after) ORDER BY position DESC LIMIT :limit",
        {"organisation": organisation, "project": project, "after": after, "limit": limit},
    )
    return [StoredKey.of(row) for row in rows]


def position_of(db: sqlite3.Connection, key_id: str) -> int | None:
    """Where a key stands in the order of creation."""
    row = db.execute("SELECT position FROM keys WHERE id = ?", (key_id,)).fetchone()
    return None if row is None else int(row[0])


def to_row(key: StoredKey) -> tuple[Any, ...]:
    """The values of COLUMNS."""
    return (
        key.id,
        key.name,
        key.tenant.organisation,
        key.tenant.project,
        key.digest,
        key.previous_digest,
        key.previous_until,
        pack_rights(key),
        key.parent,
        key.created_at,
        key.created_by,
        key.expires_at,
        key.rotated_at,
        key.revoked_at,
    )


def pack_rights(key: StoredKey) -> str:
    """The rights as they are stored."""
    return orjson.dumps(rights_to_json(key.rights)).decode()
