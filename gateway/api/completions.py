"""POST /v1/completions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from engine.base import Delta, EngineDead
from gateway.chat.completion_turn import completion_turn
from gateway.chat.turn import Caller
from gateway.control.fleet import Fleet
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
from gateway.protocol.json_body import parse_object
from gateway.protocol.sse import DONE
from gateway.state import GatewayState

# Parsing a larger body takes long enough to be felt by other streams.
PARSE_INLINE_BYTES = 256 * 1024

T = TypeVar("T")


class Completions:
    """The handler: parse, admit, tokenise, generate, answer."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raises what the table of errors knows."""
        settings = self._state.settings
        with self._state.lifecycle.admit() as fleet:
            body = await read_json_body(exchange, settings.max_body_bytes, settings.body_timeout_s)
            async with ClientWatch(exchange) as watch:
                request = await parsed(body, self._read)
                del body
                if request.stream:
                    await self._stream(exchange, watch, fleet, request)
                else:
                    answer = await complete(self._state, fleet, request, Caller.of(exchange))
                    await exchange.respond(200, answer, [JSON_TYPE])

    def _read(self, document: dict[str, Any]) -> CompletionRequest:
        strict = self._state.settings.strict_parameters
        return read_completion_request(document, strict=strict)

    async def _stream(
        self, exchange: Exchange, watch: ClientWatch, fleet: Fleet, request: CompletionRequest
    ) -> None:
        """Send events as they come. The first delta decides between an answer and an error,
        unless it is so late that the client needs a sign of life first."""
        stream = SseStream(exchange, watch, self._state.settings.sse_ping_s)
        caller = Caller.of(exchange)
        async with completion_turn(self._state, fleet, request, caller) as turn:
            writer = CompletionChunkWriter(turn)
            async for delta in turn:
                await stream.write(await written(writer.parts, delta, writer.write))
            end = writer.finish() + DONE
        await stream.end(end)


async def parsed(body: bytes, read: Callable[[dict[str, Any]], T]) -> T:
    """What ``read`` makes of a JSON body. Raises InvalidRequest."""

    def parse() -> T:
        return read(parse_object(body))

    if len(body) <= PARSE_INLINE_BYTES:
        return parse()
    return await asyncio.to_thread(parse)


async def complete(
    state: GatewayState, fleet: Fleet, request: CompletionRequest, caller: Caller
) -> bytes:
    """The answer in one piece, as JSON. Raises what ``completion_turn`` raises."""
    while True:
        begun = False
        try:
            async with completion_turn(state, fleet, request, caller) as turn:
                begun = True
                gatherer = CompletionGatherer(turn)
                async for delta in turn:
                    await written(gatherer.parts, delta, gatherer.take)
            tokens = turn.meter.prompt_tokens + turn.meter.completion_tokens
            if is_heavy(turn, tokens):
                return await asyncio.to_thread(gatherer.body)
            return gatherer.body()
        except EngineDead:
            # Nobody has heard of the answer before its end, so another engine may begin anew.
            if not begun:
                raise


async def written(parts: ChoiceParts, delta: Delta, write: Callable[[Delta], T]) -> T:
    """``write(delta)``, in a thread when the log-probabilities of a long prompt go with it."""
    if parts.opens_heavily(delta):
        return await asyncio.to_thread(write, delta)
    return write(delta)
