"""POST /v1/messages and POST /v1/messages/count_tokens, in Anthropic's protocol."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import orjson

from gateway.api.dispatched import DispatchedHandler
from gateway.chat.caller import Caller
from gateway.chat.raw_prompt import conversation_ids
from gateway.chat.template import ChatTemplate
from gateway.chat.turn import ChatTurn, chat_turn
from gateway.control.fleet import Fleet
from gateway.errors import InvalidRequest
from gateway.http.body import read_json_body
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.http.sse_stream import SseStream
from gateway.http.watch import ClientWatch
from gateway.protocol.anthropic_events import PING, AnswerPlan, EventWriter, MessageGatherer, frame
from gateway.protocol.anthropic_request import MessageRequest, read_message_request
from gateway.protocol.chat_request import ChatRequest
from gateway.protocol.json_body import parsed
from gateway.protocol.token_requests import TokenizeRequest
from gateway.state import GatewayState


class Messages(DispatchedHandler):
    """The handler of ``/v1/messages``."""

    api = "messages"

    async def _local(
        self, exchange: Exchange, watch: ClientWatch, fleet: Fleet, body: bytes
    ) -> None:
        request = await parse(self._state, exchange, body, counting=False)
        del body
        stream = None
        if request.chat.stream:
            stream = SseStream(exchange, watch, self._state.settings_of(exchange).sse_ping_s, PING)
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
        settings = self._state.settings_of(exchange)
        with self._state.lifecycle.admit() as fleet:
            body = await read_json_body(exchange, settings.max_body_bytes, settings.body_timeout_s)
            async with ClientWatch(exchange):
                request = await parse(self._state, exchange, body, counting=True)
                route = fleet.route(request.chat.model, exchange.principal)
                exchange.details["model"] = route.info.id
                with request.naming_own_fields():
                    asked = to_tokenize(request.chat, route.prompts.template)
                    ids = await conversation_ids(route.prompts, asked, self._state.media)
                answer = orjson.dumps({"input_tokens": len(ids)})
                await exchange.respond(200, answer, [JSON_TYPE])


def to_tokenize(chat: ChatRequest, template: ChatTemplate | None) -> TokenizeRequest:
    """The prompt of a chat request alone; unlike a prompt to answer, it may have any length."""
    effort = template.effort_variables(chat.reasoning_effort) if template is not None else {}
    return TokenizeRequest(
        model=chat.model,
        prompt=None,
        messages=chat.messages,
        tools=chat.tools,
        add_generation_prompt=chat.add_generation_prompt,
        continue_final_message=chat.continue_final_message,
        template_variables=effort | chat.template_variables,
        add_special_tokens=False,
        return_token_strs=False,
    )


async def parse(
    state: GatewayState, exchange: Exchange, body: bytes, *, counting: bool
) -> MessageRequest:
    """The checked request; a large one is read in a thread."""
    strict = state.settings_of(exchange).strict_parameters

    def read(document: dict[str, Any]) -> MessageRequest:
        return read_message_request(document, strict=strict, counting=counting)

    return await parsed(body, read)


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
