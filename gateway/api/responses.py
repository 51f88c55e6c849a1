"""POST /v1/responses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import orjson
from fastapi import FastAPI

from gateway.api.dispatched import DispatchedHandler
from gateway.api.responses_background import BackgroundRuns
from gateway.api.responses_service import ResponsesService, Work
from gateway.api.responses_stored import stored_routes
from gateway.chat.caller import Caller
from gateway.control.admission.tiers import served_tier, take_tier
from gateway.control.fleet import Fleet
from gateway.errors import DeadlinePassed, ErrorAnswer, answer, is_expected
from gateway.http.edge import HotHandler
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.http.sse_stream import SseStream
from gateway.http.watch import ClientWatch
from gateway.protocol.json_body import parsed
from gateway.protocol.response_answer import ResponseAnswer
from gateway.protocol.response_events import error_event
from gateway.protocol.response_request import ResponseRequest, read_response_request
from gateway.state import GatewayState
from gateway.store.responses import Record

log = logging.getLogger("gateway.responses")


class Responses(DispatchedHandler):
    """The handler: parse, find the context, generate, answer, store."""

    api = "responses"

    def __init__(
        self, state: GatewayState, service: ResponsesService, runs: BackgroundRuns
    ) -> None:
        super().__init__(state)
        self._service = service
        self._runs = runs

    async def _local(
        self, exchange: Exchange, watch: ClientWatch, fleet: Fleet, body: bytes
    ) -> None:
        request = await parsed(body, self._reader(exchange))
        del body
        take_tier(exchange, request.fields.get("service_tier"))
        work = await self._service.prepare(exchange.principal.owner, request)
        work.head["service_tier"] = served_tier(exchange.priority)
        if request.background:
            await self._answer_at_once(exchange, watch, fleet, work)
        elif request.stream:
            await self._stream(exchange, watch, fleet, work)
        else:
            await self._respond(exchange, fleet, work)

    def _reader(self, exchange: Exchange) -> Callable[[dict[str, Any]], ResponseRequest]:
        strict = self._state.settings_of(exchange).strict_parameters
        return lambda document: read_response_request(document, strict=strict)

    async def _respond(self, exchange: Exchange, fleet: Fleet, work: Work) -> None:
        """Answer in one piece."""
        found = ResponseAnswer(work.head, stream=False)
        async with AsyncExitStack() as stack:
            turn = await self._service.turn(stack, fleet, work, Caller.of(exchange))
            found.begin(turn, logprobs=work.request.logprobs)
            async for part in turn:
                found.take(part)
        found.complete()
        await self._keep(exchange, found, work)
        await exchange.respond(200, orjson.dumps(found.body), [JSON_TYPE])

    async def _stream(
        self, exchange: Exchange, watch: ClientWatch, fleet: Fleet, work: Work
    ) -> None:
        """Send events as they come. The first delta decides between an answer and an error,
        unless it is so late that the client needs a sign of life first."""
        found = ResponseAnswer(work.head, stream=True)
        stream = SseStream(exchange, watch, self._state.settings_of(exchange).sse_ping_s)
        begun = False
        try:
            async with AsyncExitStack() as stack:
                turn = await self._service.turn(stack, fleet, work, Caller.of(exchange))
                head = found.begin(turn, logprobs=work.request.logprobs)
                begun = True
                await stream.write(head)
                async for part in turn:
                    if data := found.take(part):
                        await stream.write(data)
            ending = found.complete()
        except asyncio.CancelledError:
            # The client has its id, and can read and go on from what there is.
            if begun:
                found.cancel()
                await self._keep(exchange, found, work)
            raise
        except Exception as error:
            if not exchange.status:
                raise
            told = note_break(exchange, error)
            if not begun:
                return await stream.end(break_event(told))
            ending = found.fail(error, exchange.request_id)
        await self._keep(exchange, found, work)
        await stream.end(ending + found.last())

    async def _answer_at_once(
        self, exchange: Exchange, watch: ClientWatch, fleet: Fleet, work: Work
    ) -> None:
        """Answer that the work is queued; as a stream, follow it. It goes on without the client."""
        live = await self._runs.start(fleet, Caller.of(exchange), work)
        exchange.details["response"] = live.id
        exchange.details["background"] = True
        if not work.request.stream:
            return await exchange.respond(200, orjson.dumps(live.answer.body), [JSON_TYPE])
        stream = SseStream(exchange, watch, self._state.settings_of(exchange).sse_ping_s)
        async for data in live.follow(-1):
            await stream.write(data)
        await stream.end(b"")

    async def _keep(self, exchange: Exchange, found: ResponseAnswer, work: Work) -> None:
        """Store the response where that is wanted; it says so when it is not kept."""
        if work.request.store:
            record = Record(found.body, work.input)
            found.body["store"] = await self._service.keep(exchange.principal.owner, record)


def note_break(exchange: Exchange, error: Exception) -> ErrorAnswer:
    """Account for a stream that breaks after its headers."""
    if not is_expected(error):
        log.error("a response failed", exc_info=error)
    told = answer(error, exchange.request_id)
    exchange.outcome = "cancelled" if isinstance(error, DeadlinePassed) else "failed"
    exchange.error_code = told.code
    return told


def break_event(told: ErrorAnswer) -> bytes:
    """The ``error`` event for an error answer that comes too late for a status."""
    error = orjson.loads(told.body)["error"]
    return error_event(error["message"], error["type"], error["param"], error["code"])


def mount_responses(state: GatewayState, hot: dict[str, HotHandler], cold: FastAPI) -> None:
    """Add the Responses API to a server that is being built."""
    service = ResponsesService(state)
    runs = BackgroundRuns(service)
    hot["/v1/responses"] = Responses(state, service, runs)
    cold.include_router(stored_routes(service, runs))
    state.lifecycle.closers.append(service.close)
