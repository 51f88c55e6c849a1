"""Files of the callers: rows in SQLite, content in one file each below DATA_DIR.

Everything is per owner: another owner's id does not exist. Content is written to a draft and
given its name before its row is made, so that every row has its content.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from gateway.batch.file_rows import (
    Order,
    StoredFile,
    find,
    insert,
    not_found,
    select_page,
    usage_of,
)
from gateway.errors import BodyTooLarge, InvalidRequest, StorageUnavailable
from gateway.store.sqlite import Database, make_private_folder, unavailable

log = logging.getLogger("gateway.files")

T = TypeVar("T")

UPLOAD_PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
OUTPUT_PURPOSE = "batch_output"
PURPOSES = (*UPLOAD_PURPOSES, OUTPUT_PURPOSE)
HOUR_S = 3600
DAY_S = 24 * HOUR_S
# Files for and from batches go after a month, as at OpenAI; others stay until deleted.
BATCH_LIFETIME_S = 30 * DAY_S
MOST_FILES = 10_000
# Content without a row is what a killed process left; younger content may still get its row.
ORPHAN_AGE_S = HOUR_S
DRAFT = ".draft"


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes: of one file, and of all files of one owner."""

    file_bytes: int
    owner_bytes: int


class Draft:
    """Content on its way to a file. For one thread at a time.

    Args:
        bounded: whether the owner's limits apply; what the server makes itself is never cut off.
    """

    def __init__(
        self, store: FileStore, owner: str, path: Path, stream: BinaryIO, *, bounded: bool
    ) -> None:
        self._store = store
        self._bounded = bounded
        self.owner = owner
        self.path = path
        self.stream = stream
        self.bytes = 0

    def write(self, data: bytes) -> None:
        """Append; runs in a thread. Raises BodyTooLarge, InvalidRequest, OSError."""
        if self._bounded:
            self._store.reserve(self.owner, self.bytes, len(data))
        self.bytes += len(data)
        self.stream.write(data)

    def close(self) -> None:
        """Give the reserved space back and remove what did not become a file."""
        if self._bounded:
            self._store.release(self.owner, self.bytes)
        self.stream.close()
        self.path.unlink(missing_ok=True)


class FileStore:
    """All files. Owned by one event loop; content is touched in threads only."""

    def __init__(self, database: Database, folder: Path, limits: Limits) -> None:
        self._database = database
        self.folder = folder
        self._limits = limits
        self._stored: dict[str, int] = {}
        self._reserved: Counter[str] = Counter()
        self._counting = threading.Lock()

    def path(self, file_id: str) -> Path:
        """Where the content of a file is; ids come from rows, never from callers."""
        return self.folder / file_id

    async def draft(self, owner: str) -> Draft:
        """Begin a file. Raises InvalidRequest for an owner with too much stored already."""
        usage, count = await self._database.run(lambda db: usage_of(db, owner))
        if count >= MOST_FILES:
            raise InvalidRequest(
                f"You have {count} files; delete some first.", param="file", code="too_many_files"
            )
        self._stored[owner] = usage
        self.reserve(owner, 0, 0)
        return await self._in_thread(self.open_draft, owner, True)

    async def add(
        self, draft: Draft, purpose: str, filename: str, lifetime_s: int | None
    ) -> StoredFile:
        """Make a draft a file. Raises StorageUnavailable."""
        now = int(time.time())
        stored = StoredFile(
            new_id(),
            draft.owner,
            purpose,
            filename,
            draft.bytes,
            now,
            None if lifetime_s is None else now + lifetime_s,
        )
        await self._in_thread(self.settle, draft, stored.id)
        await self._database.run(lambda db: insert(db, stored))
        with self._counting:
            self._stored[draft.owner] = self._stored.get(draft.owner, 0) + stored.bytes
        return stored

    def settle(self, draft: Draft, file_id: str) -> None:
        """Give finished content its name. In a thread."""
        draft.stream.flush()
        os.fsync(draft.stream.fileno())
        os.replace(draft.path, self.path(file_id))

    async def get(self, owner: str, file_id: str) -> StoredFile:
        """One file. Raises ObjectNotFound."""
        return await self._database.run(lambda db: find(db, owner, file_id))

    async def page(
        self, owner: str, *, after: str | None, limit: int, order: Order, purpose: str | None
    ) -> tuple[list[StoredFile], bool]:
        """A page and whether more follow. Raises InvalidRequest for an unknown ``after``."""
        return await self._database.run(
            lambda db: select_page(db, owner, after, limit, order, purpose)
        )

    async def open(self, owner: str, file_id: str) -> tuple[StoredFile, BinaryIO]:
        """A file and its content, to be closed by the caller. Raises ObjectNotFound."""
        stored = await self.get(owner, file_id)
        try:
            return stored, await asyncio.to_thread(open, self.path(file_id), "rb")
        except FileNotFoundError:
            raise not_found(file_id) from None
        except OSError as error:
            raise self._unusable(error) from None

    async def delete(self, owner: str, file_id: str) -> None:
        """Remove a file. Raises ObjectNotFound."""

        def work(db: sqlite3.Connection) -> None:
            find(db, owner, file_id)
            db.execute("DELETE FROM files WHERE id = ?", (file_id,))

        await self._database.run(work)
        await self._in_thread(self.path(file_id).unlink, True)

    async def sweep(self) -> None:
        """Remove expired files, and content that a killed process left without a row."""

        def expire(db: sqlite3.Connection) -> list[str]:
            gone = db.execute("DELETE FROM files WHERE expires_at <= ? RETURNING id", (now,))
            return [row[0] for row in gone.fetchall()]

        def known(db: sqlite3.Connection) -> set[str]:
            rows = db.execute(
                "SELECT id FROM files UNION SELECT id FROM batches WHERE status IN "
                "('validating', 'in_progress', 'finalizing', 'cancelling')"
            )
            return {row[0] for row in rows}

        now = int(time.time())
        for file_id in await self._database.run(expire):
            await self._in_thread(self.path(file_id).unlink, True)
        old = await self._in_thread(self._old_content)
        if old:
            names = await self._database.run(known)
            for path in old:
                if path.name not in names:
                    await self._in_thread(path.unlink, True)

    def reserve(self, owner: str, written: int, more: int) -> None:
        """Count ``more`` bytes of an upload. Raises BodyTooLarge, InvalidRequest."""
        limits = self._limits
        if written + more > limits.file_bytes:
            raise BodyTooLarge(f"The file is larger than {limits.file_bytes} bytes.")
        with self._counting:
            taken = self._stored.get(owner, 0) + self._reserved[owner]
            if taken + more > limits.owner_bytes:
                raise InvalidRequest(
                    f"Your files would take more than {limits.owner_bytes} bytes in all; "
                    "delete some first.",
                    param="file",
                    code="storage_limit_exceeded",
                )
            self._reserved[owner] += more

    def release(self, owner: str, size: int) -> None:
        """Take back what was counted."""
        with self._counting:
            self._reserved[owner] -= size

    def open_draft(self, owner: str, bounded: bool) -> Draft:
        """Begin a file whose owner has been checked. In a thread. Raises OSError."""
        make_private_folder(self.folder)
        path = self.folder / (new_id() + DRAFT)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return Draft(self, owner, path, os.fdopen(descriptor, "wb"), bounded=bounded)

    def _old_content(self) -> list[Path]:
        limit = time.time() - ORPHAN_AGE_S
        old = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self.folder):
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat().st_mtime < limit:
                        old.append(Path(entry.path))
        return old

    async def _in_thread(self, act: Callable[..., T], *args: Any) -> T:
        try:
            return await asyncio.to_thread(act, *args)
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: OSError) -> StorageUnavailable:
        log.error("DATA_DIR cannot be used", extra={"fields": {"cause": str(error)}})
        return unavailable()


def new_id() -> str:
    """An id that cannot be guessed and is safe as a file name."""
    return f"file-{os.urandom(12).hex()}"
