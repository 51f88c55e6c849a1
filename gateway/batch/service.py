"""Files and batches of one gateway, put together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from gateway.batch.batch_rows import Batch, NewBatch
from gateway.batch.batches import BatchStore
from gateway.batch.files import FileStore, Limits
from gateway.batch.line import Handler
from gateway.batch.runner import BatchRunner
from gateway.batch.schema import FILE_NAME, MIGRATIONS
from gateway.errors import InvalidRequest, ObjectNotFound
from gateway.state import GatewayState
from gateway.store.sqlite import Database, unavailable

# What a batch may ask, as far as this gateway serves it.
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")


class Batches:
    """What the API handlers use.

    Args:
        handlers: of every hot route; those of ENDPOINTS answer lines.
    """

    def __init__(self, state: GatewayState, handlers: Mapping[str, Handler]) -> None:
        settings = state.settings
        path = settings.data_dir / FILE_NAME
        limits = Limits(settings.files_max_bytes, settings.files_max_total_bytes)
        self._database = Database(path, MIGRATIONS)
        self.files = FileStore(self._database, settings.data_dir / "files", limits)
        self.batches = BatchStore(self._database)
        self._handlers = handlers
        self.runner = BatchRunner(state, handlers, self.files, self.batches, path)
        state.lifecycle.starters.append(self.runner.start)
        state.lifecycle.drainers.append(self.runner.stop)
        state.lifecycle.closers.append(self._database.close)

    @property
    def endpoints(self) -> tuple[str, ...]:
        """What a batch may name."""
        return tuple(name for name in ENDPOINTS if name in self._handlers)

    async def create(self, asked: NewBatch) -> Batch:
        """A new batch with content of its own, so that its file may be deleted.

        Raises InvalidRequest, StorageUnavailable.
        """
        try:
            source = await self.files.get(asked.owner, asked.input_file_id)
        except ObjectNotFound:
            raise InvalidRequest(
                "Invalid 'input_file_id': no such file.", param="input_file_id"
            ) from None
        content = self.files.path(asked.batch_id)
        try:
            await asyncio.to_thread(keep, self.files.path(source.id), content)
        except OSError:
            raise unavailable() from None
        try:
            batch = await self.batches.create(asked, source)
        except BaseException:
            await asyncio.to_thread(content.unlink, True)
            raise
        self.runner.wake()
        return batch

    async def cancel(self, owner: str, batch_id: str) -> Batch:
        """Have a batch stop. Raises ObjectNotFound, Conflict, StorageUnavailable."""
        batch = await self.batches.cancel(owner, batch_id)
        self.runner.cancel(batch_id)
        self.runner.wake()
        return batch


def keep(source: Path, copy: Path) -> None:
    """A second name for a file's content, or a copy where the file system has no such names."""
    try:
        os.link(source, copy)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, copy)
    # Not an orphan, whatever the age of the upload: its row is about to be made.
    with contextlib.suppress(OSError):
        os.utime(copy)
