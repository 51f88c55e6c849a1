"""Responses that are worked on after their request has been answered."""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace

from engine.base import EngineOverloaded
from gateway.api.responses_service import ResponsesService, Work, not_found
from gateway.chat.adapters import adapter_of
from gateway.chat.caller import Caller
from gateway.chat.turn import ChatTurn
from gateway.control.admission.policy import priority_of
from gateway.control.fleet import Fleet
from gateway.control.ledger.ledger import Ended
from gateway.errors import OVERLOADED_RETRY_S, InvalidRequest, RateLimited, is_expected
from gateway.protocol.response_answer import ResponseAnswer
from gateway.settings import ONNX_MAX_NUM_SEQS
from gateway.store.responses import Record
from gateway.telemetry.logging import REQUEST_ID

log = logging.getLogger("gateway.responses")

SEPARATOR = b"\n\n"


class LiveResponse:
    """A response that is being worked on, and its events so far.

    Attributes:
        answer: what it has become until now.
        caller: who asked for it, and what became of it.
        ended: nothing more is added.
        cancelled: its caller asked for the end.
    """

    def __init__(self, tenant: str, work: Work, caller: Caller) -> None:
        self.tenant = tenant
        self.work = work
        self.caller = caller
        self.request_id = REQUEST_ID.get() or ""
        self.answer = ResponseAnswer(work.head, stream=work.request.stream)
        self.ended = False
        self.cancelled = False
        self.task: asyncio.Task[None] | None = None
        self._events: list[bytes] = []
        self._changed = asyncio.Event()

    @property
    def id(self) -> str:
        """The response's id."""
        return str(self.answer.body["id"])

    @property
    def record(self) -> Record:
        """As it can be read now."""
        return Record(self.answer.body, self.work.input)

    def final_record(self) -> Record:
        """As it is kept for good, a stream with its events. Packs them: call in a thread."""
        events = zlib.compress(b"".join(self._events)) if self.work.request.stream else None
        return Record(self.answer.body, self.work.input, events)

    def add(self, data: bytes) -> None:
        """Add whole events and wake who follows."""
        if data:
            self._events += split_events(data)
            self._wake()

    def end(self, data: bytes) -> None:
        """Add the last events."""
        self._events += split_events(data)
        self.ended = True

    def publish_end(self) -> None:
        """Show the end to who follows."""
        self._wake()

    async def follow(self, after: int, silence_s: float | None = None) -> AsyncIterator[bytes]:
        """Events with higher numbers than ``after``, as they come, to the end.

        Nothing at all (``b""``) for each ``silence_s`` in which there were none.
        """
        position = after + 1
        while True:
            changed = self._changed
            ended = self.ended
            if position < len(self._events):
                pieces = self._events[position:]
                position = len(self._events)
                yield b"".join(pieces)
            if ended:
                return
            try:
                async with asyncio.timeout(silence_s):
                    await changed.wait()
            except TimeoutError:
                yield b""

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class BackgroundRuns:
    """All live background responses of this process. Owned by the event loop."""

    def __init__(self, service: ResponsesService) -> None:
        settings = service.state.settings
        self._service = service
        self._most = max(settings.max_queue, 1)
        self._slots = asyncio.Semaphore(settings.max_num_seqs or ONNX_MAX_NUM_SEQS)
        self._live: dict[str, LiveResponse] = {}

    async def start(self, fleet: Fleet, asked_by: Caller, work: Work) -> LiveResponse:
        """Store the response as queued and begin to work on it.

        Raises EngineOverloaded, StorageUnavailable, and what building its prompt raises.
        """
        self._forget_ended()
        if len(self._live) >= self._most:
            raise EngineOverloaded("too many background responses wait")
        # It goes on without the request that started it: its headers, log line and deadline.
        principal, ask = asked_by.principal, asked_by.ask
        started = time.perf_counter()
        caller = Caller(principal, started, {}, [], priority=asked_by.priority, ask=ask)
        live = LiveResponse(principal.owner, work, caller)
        self._live[live.id] = live
        try:
            route = fleet.route(work.chat.model, principal, ask=ask)
            work.head["model"] = adapter_of(route, work.chat.model) or route.info.id
            await self._service.fit(work, fleet, caller)
            if not await self._service.store.put(principal.owner, live.record):
                raise InvalidRequest(
                    "A background response must be stored, and this one cannot be: it is too "
                    "large, or this server keeps none.",
                    param="background",
                )
        except BaseException:
            del self._live[live.id]
            raise
        live.add(live.answer.queued())
        live.task = asyncio.create_task(self._run(live))
        return live

    def find(self, tenant: str, response_id: str) -> LiveResponse | None:
        """A live response of this tenant."""
        live = self._live.get(response_id)
        return live if live is not None and live.tenant == tenant else None

    async def cancel(self, live: LiveResponse) -> None:
        """End the work; returns when nothing of it is left."""
        if live.task is None or live.ended:
            return
        live.cancelled = True
        live.task.cancel()
        await asyncio.wait({live.task})
        if not live.ended:  # it was cancelled before its first step
            await self._settle(live, live.answer.cancel())

    def forget(self, live: LiveResponse) -> None:
        """Know nothing of a response any more; it has ended."""
        self._live.pop(live.id, None)

    async def _run(self, live: LiveResponse) -> None:
        answer, caller, request_id = live.answer, live.caller, live.request_id
        try:
            with self._service.state.lifecycle.admit() as fleet:
                try:
                    async with self._slots:
                        await self._generate(live, fleet, caller)
                    ending = answer.complete()
                except asyncio.CancelledError as error:
                    ending = answer.cancel() if live.cancelled else answer.fail(error, request_id)
                except Exception as error:
                    ending = answer.fail(error, request_id)
                    if not is_expected(error):
                        log.error("a background response failed", exc_info=error)
                await self._settle(live, ending)
        except Exception as error:
            # The server began to drain before this could begin.
            await self._settle(live, answer.fail(error, request_id))
        fields = {"response": live.id, "status": answer.body["status"], **caller.details}
        log.info("background response", extra={"fields": {"key": caller.principal.id, **fields}})

    async def _settle(self, live: LiveResponse, ending: bytes) -> None:
        """Count it, store the end, then show it. Stays in memory where storing failed."""
        self._enter(live)
        live.end(ending + live.answer.last())
        record = await asyncio.to_thread(live.final_record)
        if await self._service.finish(live.tenant, record):
            self._live.pop(live.id, None)
        live.publish_end()

    def _enter(self, live: LiveResponse) -> None:
        """Enter the request into the ledger, once its status is the last one."""
        if live.ended:
            return
        body, caller = live.answer.body, live.caller
        outcome = {"failed": "failed", "cancelled": "cancelled"}.get(body["status"], "completed")
        self._service.state.ledger.record(
            Ended(
                source="background",
                principal=caller.principal,
                route="/v1/responses",
                request_id=live.request_id,
                outcome=outcome,
                status=200,
                error_code=(body.get("error") or {}).get("code"),
                total_s=time.perf_counter() - caller.started,
                details=caller.details,
            )
        )

    async def _generate(self, live: LiveResponse, fleet: Fleet, caller: Caller) -> None:
        async with AsyncExitStack() as stack:
            turn = await self._turn(stack, live, fleet, caller)
            live.add(live.answer.begin(turn, logprobs=live.work.request.logprobs))
            async for part in turn:
                live.add(live.answer.take(part))

    async def _turn(
        self, stack: AsyncExitStack, live: LiveResponse, fleet: Fleet, caller: Caller
    ) -> ChatTurn:
        """Nobody waits for the first token here, so a full queue or window is waited out."""
        while True:
            # It may have waited long: its key may have ended or lost rights meanwhile.
            principal = self._service.state.keyring.renew(caller.principal)
            highest = priority_of(principal.rights.highest_class)
            priority = max(caller.priority, highest)
            caller = replace(caller, principal=principal, priority=priority)
            try:
                return await self._service.turn(stack, fleet, live.work, caller)
            except EngineOverloaded:
                await asyncio.sleep(OVERLOADED_RETRY_S)
            except RateLimited as error:
                if not error.retry or error.retry_after_ms is None:
                    raise
                await asyncio.sleep(error.retry_after_ms / 1000)

    def _forget_ended(self) -> None:
        """Make room: drop the oldest ends that could not be stored."""
        for key in [key for key, live in self._live.items() if live.ended]:
            if len(self._live) < self._most:
                break
            del self._live[key]


async def find_response(
    service: ResponsesService, runs: BackgroundRuns, tenant: str, response_id: str
) -> tuple[Record, LiveResponse | None]:
    """A response, live or stored. Raises ObjectNotFound and StorageUnavailable."""
    live = runs.find(tenant, response_id)
    if live is not None:
        return live.record, live
    record = await service.store.get(tenant, response_id)
    if record is None:
        raise not_found(response_id)
    return record, None


def split_events(data: bytes) -> list[bytes]:
    """Events one by one; none holds an empty line."""
    return [piece + SEPARATOR for piece in data.split(SEPARATOR) if piece]


def stored_events(packed: bytes, after: int) -> bytes:
    """The events of a stored stream with higher numbers than ``after``."""
    return b"".join(split_events(zlib.decompress(packed))[after + 1 :])
