"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from engine.base import EngineDead
from gateway.api.dispatched import CachingHandler
from gateway.chat.caller import Caller
from gateway.chat.turn import ChatTurn, chat_turn
from gateway.control.admission.tiers import served_tier
from gateway.control.fleet import Fleet
from gateway.control.response_cache.slot import Slot
from gateway.http.exchange import Exchange
from gateway.http.sse_stream import SseStream
from gateway.http.watch import ClientWatch
from gateway.protocol.chat_answer import AnswerFrame, AnswerGatherer, ChunkWriter
from gateway.protocol.chat_request import ChatRequest, read_chat_request
from gateway.protocol.sse import DONE
from gateway.state import GatewayState


class ChatCompletions(CachingHandler[ChatRequest]):
    """The handler: parse, admit, generate, answer."""

    api = "chat"

    def _read(self, document: dict[str, Any], *, strict: bool) -> ChatRequest:
        return read_chat_request(document, strict=strict)

    async def _whole(
        self, fleet: Fleet, request: ChatRequest, caller: Caller, slot: Slot | None
    ) -> bytes:
        return await complete_chat(self._state, fleet, request, caller, slot)

    async def _stream(
        self,
        exchange: Exchange,
        watch: ClientWatch,
        fleet: Fleet,
        request: ChatRequest,
        slot: Slot | None,
    ) -> None:
        sse = SseStream(exchange, watch, self._state.settings_of(exchange).sse_ping_s)
        send = slot.recording(sse.write) if slot is not None else sse.write
        # Several choices come together and are better joined.
        push = sse.push if slot is None and request.n == 1 else None
        async with chat_turn(self._state, fleet, request, Caller.of(exchange)) as turn:
            writer = ChunkWriter(new_frame(turn, exchange.priority), turn)
            read, see = turn.read, turn.meter.see
            readers, write, write_text = turn.readers, writer.write, writer.write_text
            simple = writer.takes_text and request.logprobs is None and turn.hooked is None
            await send(write(read(turn.first)))
            async for delta in turn.rest:
                if simple and delta.finish_reason is None and readers[delta.index] is None:
                    see(delta)
                    if delta.text:
                        data = write_text(delta.index, delta.text)
                        if push is None or not push(data):
                            await send(data)
                elif data := write(read(delta)):
                    await send(data)
            end = writer.finish() + DONE
            if slot is not None:
                slot.keep_stream(turn, end)
            await sse.end(end)


async def complete_chat(
    state: GatewayState,
    fleet: Fleet,
    request: ChatRequest,
    caller: Caller,
    slot: Slot | None = None,
) -> bytes:
    """A chat completion in one piece, as JSON; kept in ``slot``. Raises what ``chat_turn`` raises.

    Nobody has heard of it before its end, so another engine begins anew when one dies.
    """
    while True:
        begun = False
        try:
            async with chat_turn(state, fleet, request, caller) as turn:
                begun = True
                frame = new_frame(turn, caller.priority)
                gatherer = AnswerGatherer(frame, logprobs=request.logprobs is not None)
                async for part in turn:
                    gatherer.take(part)
                answer = gatherer.body(turn)
                if slot is not None:
                    slot.keep(turn, answer)
                return answer
        except EngineDead:
            if not begun:
                raise


def new_frame(turn: ChatTurn, priority: int) -> AnswerFrame:
    """What every part of the answer shares; ``priority`` is the request's."""
    request = turn.request
    tier = None if "service_tier" not in request.fields else served_tier(priority)
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
        tier=tier,
    )
