"""One batch on its way from validation to its files.

Every step begins from what the store holds, so a run may be cut off at any moment and begun
again by another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from engine.base import EngineError
from gateway.batch.batch_rows import Batch
from gateway.batch.batches import BatchStore
from gateway.batch.file_rows import StoredFile
from gateway.batch.files import OUTPUT_PURPOSE, FileStore, new_id
from gateway.batch.line import (
    Account,
    Handler,
    Reply,
    TryAgain,
    TryLater,
    execute,
    given_up,
    result_of,
    unrun,
)
from gateway.batch.pace import Pacer, SentAway
from gateway.batch.validate import Fault, Line, Validator, Verdict, read_lines
from gateway.control.fleet import Task
from gateway.control.identity.access import group_of, permits
from gateway.control.rights import Principal
from gateway.errors import ModelLoading, ModelNotFound
from gateway.state import GatewayState

log = logging.getLogger("gateway.batch")

T = TypeVar("T")

MOST_ATTEMPTS = 5
# Processes that may end unexpectedly while a line runs: an engine in this process takes the
# process with it when it crashes.
MOST_CRASHES = 4
FIRST_DELAY_S = 0.5
LONGEST_DELAY_S = 30.0
# Lines of one batch that run or wait to be tried again.
MOST_OPEN_LINES = 512
PARSE_INLINE_BYTES = 64 * 1024
PAGE_LINES = 100

# What the error file says of lines that did not run, by how the batch ended.
NOT_RUN = {
    "expired": (
        "batch_expired",
        "This request could not be executed before the completion window expired.",
    ),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was executed."),
}


class Stopped(Exception):
    """The batch ends before all its lines have run; ``how`` is a key of NOT_RUN."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how


class BatchRun:
    """The work on one batch.

    Attributes:
        cancelled: set when the batch is to stop.
    """

    def __init__(
        self,
        state: GatewayState,
        handler: Handler,
        files: FileStore,
        batches: BatchStore,
        pacer: Pacer,
        batch: Batch,
    ) -> None:
        self._state = state
        self._handler = handler
        self._files = files
        self._batches = batches
        self._pacer = pacer
        self._batch = batch
        self._model = batch.model
        self._source: Path = files.path(batch.id)
        self._longest = state.settings.max_body_bytes
        self.cancelled = asyncio.Event()
        if batch.status == "cancelling":
            self.cancelled.set()

    async def run(self) -> None:
        """Go on from where the batch stands, to its end.

        Raises StorageUnavailable and OSError, after which it may be tried again.
        """
        batch = self._batch
        how = "completed"
        try:
            if batch.times["in_progress_at"] is None and not await self._begin():
                return
            if batch.status != "finalizing":
                await self._until_stopped(self._work())
                await self._batches.finalize(batch)
        except Stopped as stopped:
            how = stopped.how
            await self._note_unrun(how)
        output = await self._write_file(ok=True)
        errors = await self._write_file(ok=False)
        await self._batches.finish(batch, how, output, errors)
        await self._leave(how)

    async def _begin(self) -> bool:
        """Validate; whether there is work to do."""
        batch = self._batch
        try:
            verdict = await self._until_stopped(self._validate())
        except Stopped as stopped:
            await self._batches.finish(batch, stopped.how, None, None)
            await self._leave(stopped.how)
            return False
        except FileNotFoundError:
            verdict = Verdict()
            verdict.note(Fault("file_not_found", "The input file is gone.", "input_file_id"), None)
        if verdict.errors:
            await self._batches.fail(batch, verdict.errors, verdict.lines)
            await self._leave("failed")
            return False
        self._model = verdict.model
        await self._batches.begin(batch, verdict.lines, verdict.model)
        return True

    async def _validate(self) -> Verdict:
        validator = Validator(self._batch.endpoint, self._longest)
        async for lines in read_lines(self._source, self._longest):
            await asyncio.to_thread(validator.take, lines)
        verdict = validator.close()
        try:
            self._route(verdict.model)
        except ModelNotFound as error:
            fault = Fault("model_not_found", error.message, "body.model")
            verdict.note(fault, verdict.model_line)
        except (EngineError, ModelLoading):
            pass  # served, though not at this moment
        return verdict

    def _route(self, model: str | None) -> str:
        """The first name of the model that the lines ask. Raises what Fleet.route does."""
        fleet = self._state.lifecycle.loaded_fleet()
        embeds = self._batch.endpoint == "/v1/embeddings"
        task: Task = "embeddings" if embeds else "generation"
        return fleet.asked(model, self._principal(), task)

    def _principal(self) -> Principal:
        """Whose batch this is. Raises Stopped once the key is gone."""
        if (found := self._current_principal()) is None:
            log.warning("the key of a batch is gone", extra={"fields": {"batch": self._batch.id}})
            raise Stopped("cancelled")
        return found

    def _current_principal(self) -> Principal | None:
        """The key that made the batch with the rights it has now; None once it has ended or may
        not use the endpoint any more."""
        found = self._state.keyring.find(self._batch.key)
        group = group_of(self._batch.endpoint, "POST")
        return found if found is not None and permits(found, group) else None

    async def _until_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``. Raises Stopped once it has let go of everything."""
        task = asyncio.create_task(work)
        cancelled = asyncio.create_task(self.cancelled.wait())
        left_s = max(0.0, self._batch.expires_at - time.time())
        try:
            await asyncio.wait(
                {task, cancelled}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED
            )
            if task.done():
                return task.result()
            raise Stopped("cancelled" if cancelled.done() else "expired")
        finally:
            task.cancel()
            cancelled.cancel()
            await asyncio.gather(task, cancelled, return_exceptions=True)

    async def _work(self) -> None:
        """Run every line that has no result yet."""
        self._principal()
        with contextlib.suppress(EngineError, ModelLoading, ModelNotFound):
            self._model = self._route(self._model)
        done = await self._batches.lines_done(self._batch)
        places = asyncio.Semaphore(MOST_OPEN_LINES)
        async with asyncio.TaskGroup() as group:
            async for lines in read_lines(self._source, self._longest):
                for line in lines:
                    if line.number in done:
                        continue
                    await places.acquire()
                    seated = asyncio.Event()
                    group.create_task(self._run_line(line, seated, places))
                    # One line of each batch waits at a time, so that batches take turns.
                    await seated.wait()

    async def _run_line(self, line: Line, seated: asyncio.Event, places: asyncio.Semaphore) -> None:
        if len(line.text) > PARSE_INLINE_BYTES:
            custom_id, body = await asyncio.to_thread(line.parse)
        else:
            custom_id, body = line.parse()
        reply = await self._ask(line.number, body, seated)
        del body
        await self._batches.add_result(self._batch, result_of(line.number, custom_id, reply))
        places.release()

    async def _ask(self, number: int, body: dict[str, Any], seated: asyncio.Event) -> Reply:
        """The answer to one line, tried again where that can help."""
        faults = 0
        begun = False
        while True:
            delay = 0.0
            async with self._pacer.seat(self._model) as seat:
                seated.set()
                principal = self._current_principal()
                if principal is None:
                    self.cancelled.set()
                    await asyncio.Event().wait()  # the end of the batch ends this too
                    continue
                account = Account(self._state.ledger, principal, self._batch, number)
                if not begun and await self._batches.begin_line(self._batch, number) > MOST_CRASHES:
                    return account.close(given_up(), {})
                begun = True
                work = execute(self._handler, body, account)
                try:
                    return await seat.run(work)
                except SentAway:
                    pass
                except TryLater as later:
                    delay = max(FIRST_DELAY_S, min(later.after_s, LONGEST_DELAY_S))
                except TryAgain as failure:
                    faults += 1
                    if faults == MOST_ATTEMPTS:
                        return account.close(failure.reply, failure.details)
                    delay = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2**faults)
            # Spread out, so that lines that failed together do not come back together.
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311 - a delay

    async def _note_unrun(self, how: str) -> None:
        """Give every line without a result the reason for that."""
        code, message = NOT_RUN[how]
        done = await self._batches.lines_done(self._batch)
        async for lines in read_lines(self._source, self._longest):
            left = [line for line in lines if line.number not in done]
            results = await asyncio.to_thread(
                lambda left: [unrun(line.number, line.parse()[0], code, message) for line in left],
                left,
            )
            await self._batches.add_unrun(self._batch, results)

    async def _write_file(self, *, ok: bool) -> StoredFile | None:
        """All results of one kind as a file in the order of the input; None without any."""
        batch = self._batch
        page = await self._batches.results(batch, ok=ok, after=0, limit=PAGE_LINES)
        if not page:
            return None
        draft = await asyncio.to_thread(self._files.open_draft, batch.owner, False)
        try:
            while page:
                text = b"".join(result.body + b"\n" for result in page)
                await asyncio.to_thread(draft.write, text)
                last = page[-1].line
                page = await self._batches.results(batch, ok=ok, after=last, limit=PAGE_LINES)
            made = int(time.time())
            stored = StoredFile(
                id=new_id(),
                owner=batch.owner,
                purpose=OUTPUT_PURPOSE,
                filename=f"{batch.id}_{'output' if ok else 'error'}.jsonl",
                bytes=draft.bytes,
                created_at=made,
                expires_at=made + batch.output_lifetime_s,
            )
            await asyncio.to_thread(self._files.settle, draft, stored.id)
            return stored
        finally:
            await asyncio.shield(asyncio.to_thread(draft.close))

    async def _leave(self, how: str) -> None:
        """Forget the input; the store has the end of the batch already."""
        await asyncio.to_thread(self._source.unlink, True)
        fields = {"batch": self._batch.id, "key": self._batch.key, "status": how}
        log.info("batch", extra={"fields": fields})
