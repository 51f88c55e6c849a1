"""POST /v1/completions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from engine.base import Delta, EngineDead
from gateway.api.dispatched import CachingHandler
from gateway.chat.caller import Caller
from gateway.chat.completion_turn import completion_turn
from gateway.control.fleet import Fleet
from gateway.control.response_cache.slot import Slot
from gateway.http.exchange import Exchange
from gateway.http.sse_stream import SseStream
from gateway.http.watch import ClientWatch
from gateway.protocol.completion_answer import (
    ChoiceParts,
    CompletionChunkWriter,
    CompletionGatherer,
    is_heavy,
)
from gateway.protocol.completion_request import CompletionRequest, read_completion_request
from gateway.protocol.sse import DONE
from gateway.state import GatewayState

T = TypeVar("T")


class Completions(CachingHandler[CompletionRequest]):
    """The handler: parse, admit, tokenise, generate, answer."""

    api = "completions"

    def _read(self, document: dict[str, Any], *, strict: bool) -> CompletionRequest:
        return read_completion_request(document, strict=strict)

    async def _whole(
        self, fleet: Fleet, request: CompletionRequest, caller: Caller, slot: Slot | None
    ) -> bytes:
        return await complete(self._state, fleet, request, caller, slot)

    async def _stream(
        self,
        exchange: Exchange,
        watch: ClientWatch,
        fleet: Fleet,
        request: CompletionRequest,
        slot: Slot | None,
    ) -> None:
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
