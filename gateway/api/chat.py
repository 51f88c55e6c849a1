"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio

from engine.base import EngineDead
from gateway.chat.turn import Caller, ChatTurn, chat_turn
from gateway.control.fleet import Fleet
from gateway.http.body import read_json_body
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.http.sse_stream import SseStream
from gateway.http.watch import ClientWatch
from gateway.protocol.chat_answer import AnswerFrame, AnswerGatherer, ChunkWriter
from gateway.protocol.chat_request import ChatRequest, read_chat_request
from gateway.protocol.json_body import parse_object
from gateway.protocol.sse import DONE
from gateway.state import GatewayState

# Parsing a larger body takes long enough to be felt by other streams.
PARSE_INLINE_BYTES = 256 * 1024


class ChatCompletions:
    """The handler: parse, admit, generate, answer."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raises what the table of errors knows."""
        settings = self._state.settings
        with self._state.lifecycle.admit() as fleet:
            body = await read_json_body(exchange, settings.max_body_bytes, settings.body_timeout_s)
            async with ClientWatch(exchange) as watch:
                request = await self._parse(body)
                del body
                if request.stream:
                    await self._stream(exchange, watch, fleet, request)
                else:
                    caller = Caller.of(exchange)
                    answer = await complete_chat(self._state, fleet, request, caller)
                    await exchange.respond(200, answer, [JSON_TYPE])

    async def _parse(self, body: bytes) -> ChatRequest:
        def parse() -> ChatRequest:
            return read_chat_request(parse_object(body), strict=strict)

        strict = self._state.settings.strict_parameters
        if len(body) <= PARSE_INLINE_BYTES:
            return parse()
        return await asyncio.to_thread(parse)

    async def _stream(
        self, exchange: Exchange, watch: ClientWatch, fleet: Fleet, request: ChatRequest
    ) -> None:
        """Send events as they come. The first delta decides between an answer and an error,
        unless it is so late that the client needs a sign of life first."""
        sse = SseStream(exchange, watch, self._state.settings.sse_ping_s)
        send = sse.write
        async with chat_turn(self._state, fleet, request, Caller.of(exchange)) as turn:
            writer = ChunkWriter(new_frame(turn), turn)
            read, see = turn.read, turn.meter.see
            readers, write, write_text = turn.readers, writer.write, writer.write_text
            simple = writer.takes_text and request.logprobs is None
            await send(write(read(turn.first)))
            async for delta in turn.rest:
                if simple and delta.finish_reason is None and readers[delta.index] is None:
                    see(delta)
                    if delta.text:
                        await send(write_text(delta.index, delta.text))
                elif data := write(read(delta)):
                    await send(data)
            await sse.end(writer.finish() + DONE)


async def complete_chat(
    state: GatewayState, fleet: Fleet, request: ChatRequest, caller: Caller
) -> bytes:
    """A chat completion in one piece, as JSON. Raises what ``chat_turn`` raises.

    Nobody has heard of it before its end, so another engine begins anew when one dies.
    """
    while True:
        begun = False
        try:
            async with chat_turn(state, fleet, request, caller) as turn:
                begun = True
                gatherer = AnswerGatherer(new_frame(turn), logprobs=request.logprobs is not None)
                async for part in turn:
                    gatherer.take(part)
                return gatherer.body(turn)
        except EngineDead:
            if not begun:
                raise


def new_frame(turn: ChatTurn) -> AnswerFrame:
    """What every part of the answer shares."""
    request = turn.request
    last = request.messages[-1]
    return AnswerFrame(
        id=turn.id,
        created=turn.created,
        model=turn.model,
        fingerprint=turn.fingerprint,
        choices=request.n,
        texts=turn.texts,
        include_usage=request.include_usage,
        prefix=last["content"] if request.echo and last["role"] == "assistant" else "",
        degraded=turn.degraded,
        continuous_usage=request.continuous_usage,
        prompt_ids=turn.prompt.ids if request.return_token_ids else None,
        tokens_as_ids=request.tokens_as_ids,
    )
