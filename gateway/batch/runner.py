"""Works batches off in the background, across restarts.

One process at a time does so per DATA_DIR, the one that holds its lock; others take files and
batches for it, and one of them goes on when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from gateway.batch.batch_metrics import BatchMetrics
from gateway.batch.batch_rows import Batch
from gateway.batch.batches import BatchStore
from gateway.batch.files import FileStore
from gateway.batch.line import Handler
from gateway.batch.pace import Pacer
from gateway.batch.run import BatchRun
from gateway.errors import StorageUnavailable
from gateway.state import GatewayState
from gateway.store.sqlite import make_private_folder

log = logging.getLogger("gateway.batch")

# How soon batches that another process took are seen.
POLL_S = 2.0
SWEEP_S = 60.0
# Batches worked on at once; further ones wait, oldest first.
MOST_AT_ONCE = 16
MOST_DEFECTS = 5
RETRY_S = 5.0
LOCK_NAME = "batches.lock"

INTERNAL = {
    "code": "internal_error",
    "message": "The server had an error while processing the batch.",
    "param": None,
    "line": None,
}
NOT_SERVED = {
    "code": "invalid_endpoint",
    "message": "The endpoint of the batch is not served here any more.",
    "param": "endpoint",
    "line": None,
}


class BatchRunner:
    """Owned by the event loop.

    Args:
        handlers: of the endpoints that batches may ask.
        database: the file that holds the batches; nothing is done before it exists.
    """

    def __init__(
        self,
        state: GatewayState,
        handlers: Mapping[str, Handler],
        files: FileStore,
        batches: BatchStore,
        database: Path,
    ) -> None:
        self._state = state
        self._handlers = handlers
        self._files = files
        self._batches = batches
        self._database = database
        self._pacer = Pacer(state.lifecycle, state.settings.batch_max_running)
        self._runs: dict[str, tuple[BatchRun, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._lock: int | None = None
        self._swept = 0.0
        self._defects: Counter[str] = Counter()
        metrics = BatchMetrics(batches.counts, self._pacer, lambda: len(self._runs))
        state.lifecycle.metrics.sources.append(metrics.collect)

    def start(self) -> None:
        """Begin to work; the models are loaded."""
        self._main = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop at once. Lines that were running start again when this or another process goes
        on; what has been finished is in the store."""
        tasks = [task for _, task in self._runs.values()]
        if self._main is not None:
            tasks.append(self._main)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._lock is not None:
            with contextlib.suppress(StorageUnavailable):
                await self._batches.forget_attempts()
            os.close(self._lock)
            self._lock = None

    def wake(self) -> None:
        """Look for new batches now."""
        self._wake.set()

    def cancel(self, batch_id: str) -> None:
        """Have a batch that is marked so in the store stop now."""
        if batch_id in self._runs:
            self._runs[batch_id][0].cancelled.set()

    async def _run(self) -> None:
        pacing = asyncio.create_task(self._pacer.run())
        try:
            while True:
                try:
                    if self._database.exists() and await self._is_ours():
                        await self._look()
                except (StorageUnavailable, OSError) as error:
                    log.warning("batches rest", extra={"fields": {"cause": str(error)}})
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_S):
                        await self._wake.wait()
        finally:
            pacing.cancel()
            await asyncio.gather(pacing, return_exceptions=True)

    async def _is_ours(self) -> bool:
        """Whether this process works the batches off; it stays so until the process ends."""
        if self._lock is None:
            path = self._state.settings.data_dir / LOCK_NAME
            self._lock = await asyncio.to_thread(try_lock, path)
        return self._lock is not None

    async def _look(self) -> None:
        """Start what is to be done, stop what is to be cancelled, clean up now and then."""
        for batch in await self._batches.active():
            known = self._runs.get(batch.id)
            if known is None and len(self._runs) < MOST_AT_ONCE:
                await self._start(batch)
            elif known is not None and batch.status == "cancelling":
                known[0].cancelled.set()
        if time.monotonic() - self._swept > SWEEP_S:
            self._swept = time.monotonic()
            await self._files.sweep()

    async def _start(self, batch: Batch) -> None:
        handler = self._handlers.get(batch.endpoint)
        if handler is None:
            await self._batches.fail(batch, [NOT_SERVED])
            return
        run = BatchRun(self._state, handler, self._files, self._batches, self._pacer, batch)
        task = asyncio.create_task(self._see_through(run, batch))
        self._runs[batch.id] = (run, task)

    async def _see_through(self, run: BatchRun, batch: Batch) -> None:
        """Run a batch to its end, or to what may pass; the next look begins it again."""
        try:
            try:
                await run.run()
            except* (StorageUnavailable, OSError) as errors:
                fields = {"batch": batch.id, "cause": str(errors.exceptions[0])}
                log.warning("a batch is interrupted", extra={"fields": fields})
                await asyncio.sleep(RETRY_S)
            except* Exception as errors:
                log.error("unexpected exception in a batch", exc_info=errors)
                self._defects[batch.id] += 1
                if self._defects[batch.id] < MOST_DEFECTS:
                    await asyncio.sleep(RETRY_S)
                else:
                    with contextlib.suppress(StorageUnavailable):
                        await self._batches.fail(batch, [INTERNAL])
        finally:
            self._runs.pop(batch.id, None)
            self._wake.set()


def try_lock(path: Path) -> int | None:
    """The descriptor of a lock that ends with this process; None while another holds it."""
    make_private_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
