"""POST /v1/completions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from engine.base import Delta, EngineDead
from gateway.chat.caller import Caller
from gateway.chat.completion_turn import completion_turn
from gateway.control.fleet import Fleet
from gateway.control.response_cache.slot import Slot, answer_from_cache
from gateway.control.response_cache.wish import read_wish
from gateway.http.body import read_json_body
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.http.sse_stream import SseStream
from gateway.http.watch import ClientWatch
from gateway.protocol.completion_answer import (
    ChoiceParts,
    CompletionChunkWriter,
    CompletionGatherer,
    is_heavy,
)
from gateway.protocol.completion_request import CompletionRequest, read_completion_request
from gateway.protocol.json_body import parsed
from gateway.protocol.sse import DONE
from gateway.routing.dispatch import dispatch
from gateway.state import GatewayState

T = TypeVar("T")


class Completions:
    """The handler: parse, admit, tokenise, generate, answer."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raises what the table of errors knows."""
        settings = self._state.settings_of(exchange)
        with self._state.lifecycle.admit() as fleet:
            body = await read_json_body(exchange, settings.max_body_bytes, settings.body_timeout_s)
            async with ClientWatch(exchange) as watch:
                answering = dispatch(
                    self._state, exchange, watch, fleet, "completions", body, self._local
                )
                del body
                await answering

    async def _local(
        self, exchange: Exchange, watch: ClientWatch, fleet: Fleet, body: bytes
    ) -> None:
        """Answer with an engine of this process."""
        request = await parsed(body, self._reader(exchange))
        slot = None
        cache = self._state.answers
        # Hooks see every request, so none is answered without them.
        if not self._state.hooks and (wish := read_wish(exchange.headers, cache.policy)):
            slot = await answer_from_cache(cache, wish, fleet, exchange, request, body)
            if exchange.complete:
                return
        del body
        if request.stream:
            await self._stream(exchange, watch, fleet, request, slot)
        else:
            caller = Caller.of(exchange)
            answer = await complete(self._state, fleet, request, caller, slot)
            await exchange.respond(200, answer, [JSON_TYPE])

    def _reader(self, exchange: Exchange) -> Callable[[dict[str, Any]], CompletionRequest]:
        strict = self._state.settings_of(exchange).strict_parameters
        return lambda document: read_completion_request(document, strict=strict)

    async def _stream(
        self,
        exchange: Exchange,
        watch: ClientWatch,
        fleet: Fleet,
        request: CompletionRequest,
        slot: Slot | None,
    ) -> None:
        """Send events as they come. The first delta decides between an answer and an error,
        unless it is so late that the client needs a sign of life first."""
        stream = SseStream(exchange, watch, self._state.settings_of(exchange).sse_ping_s)
        send = slot.recording(stream.write) if slot is not None else stream.write
        caller = Caller.of(exchange)
        async with completion_turn(self._state, fleet, request, caller) as turn:
            writer = CompletionChunkWriter(turn)
            async for delta in turn:
                await send(await written(writer.parts, delta, writer.write))
            end = writer.finish() + DONE
        if slot is not None:
            slot.keep_stream(turn, end)
        await stream.end(end)


async def complete(
    state: GatewayState,
    fleet: Fleet,
    request: CompletionRequest,
    caller: Caller,
    slot: Slot | None = None,
) -> bytes:
    """The answer in one piece, as JSON; kept in ``slot``. Raises as ``completion_turn`` does."""
    while True:
        begun = False
        try:
            async with completion_turn(state, fleet, request, caller) as turn:
                begun = True
                gatherer = CompletionGatherer(turn)
                async for delta in turn:
                    await written(gatherer.parts, delta, gatherer.take)
            tokens = turn.meter.prompt_tokens + turn.meter.completion_tokens
            heavy = is_heavy(turn, tokens)
            answer = await asyncio.to_thread(gatherer.body) if heavy else gatherer.body()
            if slot is not None:
                slot.keep(turn, answer)
            return answer
        except EngineDead:
            # Nobody has heard of the answer before its end, so another engine may begin anew.
            if not begun:
                raise


async def written(parts: ChoiceParts, delta: Delta, write: Callable[[Delta], T]) -> T:
    """``write(delta)``, in a thread when the log-probabilities of a long prompt go with it."""
    if parts.opens_heavily(delta):
        return await asyncio.to_thread(write, delta)
    return write(delta)
