"""POST /v1/messages and POST /v1/messages/count_tokens, in Anthropic's protocol."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace

import orjson

from gateway.chat.raw_prompt import in_thread, raw_prompts
from gateway.chat.turn import Caller, ChatTurn, chat_turn
from gateway.control.fleet import Fleet
from gateway.errors import InvalidRequest
from gateway.http.body import read_json_body
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.http.sse_stream import SseStream
from gateway.http.watch import ClientWatch
from gateway.protocol.anthropic_events import PING, AnswerPlan, EventWriter, MessageGatherer, frame
from gateway.protocol.anthropic_request import MessageRequest, read_message_request
from gateway.protocol.chat_request import ChatRequest
from gateway.protocol.json_body import parse_object
from gateway.protocol.token_requests import TokenizeRequest
from gateway.state import GatewayState

# Parsing a larger body takes long enough to be felt by other streams.
PARSE_INLINE_BYTES = 256 * 1024


class Messages:
    """The handler of ``/v1/messages``."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raises what the table of errors knows."""
        with self._state.lifecycle.admit() as fleet:
            body = await read_body(self._state, exchange)
            async with ClientWatch(exchange) as watch:
                request = await parse(self._state, body, counting=False)
                del body
                stream = None
                if request.chat.stream:
                    stream = SseStream(exchange, watch, self._state.settings.sse_ping_s, PING)
                async with AsyncExitStack() as stack:
                    with request.naming_own_fields():
                        turn, plan = await self._begin(stack, fleet, request, Caller.of(exchange))
                    if stream is not None:
                        await write_stream(stream, turn, plan)
                    else:
                        await write_message(exchange, turn, plan)

    async def _begin(
        self, stack: AsyncExitStack, fleet: Fleet, request: MessageRequest, caller: Caller
    ) -> tuple[ChatTurn, AnswerPlan]:
        """Start generating. Where ``max_tokens`` asks for more than the context holds, as
        clients made for larger models do, the answer may fill the context."""
        chat = request.chat
        fills_context = False
        while True:
            try:
                turn = await stack.enter_async_context(
                    chat_turn(self._state, fleet, chat, caller, id_prefix="msg_")
                )
            except InvalidRequest as error:
                asks_too_much = (
                    error.code == "context_length_exceeded"
                    and error.param == chat.max_tokens_field
                    and chat.max_tokens is not None
                )
                if not asks_too_much:
                    raise
                chat = replace(chat, max_tokens=None)
                fills_context = True
            else:
                stops = frozenset(chat.fields.get("stop", ()))
                return turn, AnswerPlan(stops, request.thinking, fills_context)


class CountTokens:
    """The handler of ``/v1/messages/count_tokens``: renders and counts, and generates nothing."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raises what the table of errors knows."""
        with self._state.lifecycle.admit() as fleet:
            body = await read_body(self._state, exchange)
            async with ClientWatch(exchange):
                request = await parse(self._state, body, counting=True)
                route = fleet.route(request.chat.model, exchange.principal)
                exchange.details["model"] = route.info.id
                raw = await raw_prompts(route.prompts, route.info)
                with request.naming_own_fields():
                    ids = await in_thread(raw.chat_ids, to_tokenize(request.chat))
                answer = orjson.dumps({"input_tokens": len(ids)})
                await exchange.respond(200, answer, [JSON_TYPE])


def to_tokenize(chat: ChatRequest) -> TokenizeRequest:
    """The prompt of a chat request alone; unlike a prompt to answer, it may have any length."""
    variables = chat.template_variables
    if chat.reasoning_effort is not None:
        variables = {"reasoning_effort": chat.reasoning_effort, **variables}
    return TokenizeRequest(
        model=chat.model,
        prompt=None,
        messages=chat.messages,
        tools=chat.tools,
        add_generation_prompt=chat.add_generation_prompt,
        continue_final_message=chat.continue_final_message,
        template_variables=variables,
        add_special_tokens=False,
        return_token_strs=False,
    )


async def read_body(state: GatewayState, exchange: Exchange) -> bytes:
    """The body of a request, within the server's bounds."""
    settings = state.settings
    return await read_json_body(exchange, settings.max_body_bytes, settings.body_timeout_s)


async def parse(state: GatewayState, body: bytes, *, counting: bool) -> MessageRequest:
    """The checked request; a large one is read in a thread."""
    strict = state.settings.strict_parameters

    def read() -> MessageRequest:
        return read_message_request(parse_object(body), strict=strict, counting=counting)

    return read() if len(body) <= PARSE_INLINE_BYTES else await asyncio.to_thread(read)


async def write_stream(stream: SseStream, turn: ChatTurn, plan: AnswerPlan) -> None:
    """Send events as they come."""
    writer = EventWriter(turn, plan)
    head = b""
    async for part in turn:
        if not head:
            head = frame(writer.start())
            await stream.write(head)
        await stream.write(b"".join(map(frame, writer.write(part))))
    await stream.end(b"".join(map(frame, writer.finish())))


async def write_message(exchange: Exchange, turn: ChatTurn, plan: AnswerPlan) -> None:
    """Send the answer in one piece."""
    writer = EventWriter(turn, plan)
    gatherer = MessageGatherer(writer.start())
    async for part in turn:
        for event in writer.write(part):
            gatherer.take(event)
    for event in writer.finish():
        gatherer.take(event)
    await exchange.respond(200, orjson.dumps(gatherer.message), [JSON_TYPE])
