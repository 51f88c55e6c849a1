"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from engine.base import Delta, EngineDead, GenerateRequest, ModelInfo
from gateway import __version__
from gateway.chat.tool_calls import ToolCallParser
from gateway.control.auth import salt_for
from gateway.control.fleet import Fleet, Route
from gateway.errors import GenerationAborted
from gateway.http.body import read_json_body
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.http.watch import ClientWatch
from gateway.protocol.chat_answer import AnswerFrame, AnswerGatherer, ChunkWriter
from gateway.protocol.chat_request import ChatRequest, read_chat_request
from gateway.protocol.json_body import parse_object
from gateway.protocol.sse import DONE, PING, SSE_HEADERS
from gateway.state import GatewayState
from gateway.telemetry.generation import GenerationMeter

# Parsing a larger body takes long enough to be felt by other streams.
PARSE_INLINE_BYTES = 256 * 1024

Deltas = AsyncGenerator[Delta, None]


class ChatCompletions:
    """The handler: parse, admit, build the prompt, generate, answer."""

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
                await self._serve(exchange, watch, fleet, request)

    async def _parse(self, body: bytes) -> ChatRequest:
        def parse() -> ChatRequest:
            return read_chat_request(parse_object(body), strict=strict)

        strict = self._state.settings.strict_parameters
        if len(body) <= PARSE_INLINE_BYTES:
            return parse()
        return await asyncio.to_thread(parse)

    async def _serve(
        self, exchange: Exchange, watch: ClientWatch, fleet: Fleet, request: ChatRequest
    ) -> None:
        """Answer from the engine the fleet chooses; choose again when it dies unheard."""
        while True:
            route = fleet.route(request.model, exchange.principal)
            try:
                return await self._answer(exchange, watch, route, request)
            except EngineDead:
                # The fleet knows of the death now, so this ends with the last engine.
                if exchange.status:
                    raise

    async def _answer(
        self, exchange: Exchange, watch: ClientWatch, route: Route, request: ChatRequest
    ) -> None:
        info = route.info
        self._mark(exchange, route)
        exchange.details["model"] = info.id
        exchange.details["stream"] = request.stream
        prompts = route.prompts
        prompt = await prompts.build(request)
        answer_id = f"chatcmpl-{os.urandom(12).hex()}"
        work = GenerateRequest(
            request_id=answer_id,
            prompt_ids=prompt.ids,
            sampling=prompt.sampling,
            cache_salt=salt_for(exchange.principal, request.cache_salt),
        )
        metrics = self._state.lifecycle.metrics
        meter = GenerationMeter(
            metrics.models[info.id], exchange.started, len(prompt.ids), request.n
        )
        frame = new_frame(answer_id, request, route)
        completed = False
        try:
            # Closing waits until the engine has let go of the request, in every phase.
            async with aclosing(route.generate(work, self._note_carry_on)) as deltas:
                if request.stream:
                    await self._stream(exchange, watch, deltas, frame, meter)
                else:
                    await gather(exchange, deltas, frame, meter, request.logprobs is not None)
            completed = True
        finally:
            meter.close(completed=completed)
            exchange.details.update(meter.details())

    def _mark(self, exchange: Exchange, route: Route) -> None:
        """Say who answers; the last attempt counts."""
        exchange.marks = [(b"x-gateway-model", route.info.id.encode())]
        if route.degraded:
            exchange.marks.append((b"x-gateway-degraded", route.asked.encode()))
            exchange.details["degraded"] = route.asked
            self._state.lifecycle.metrics.degraded[route.asked] += 1

    def _note_carry_on(self, model: str) -> None:
        self._state.lifecycle.metrics.carried_on[model] += 1

    async def _stream(
        self,
        exchange: Exchange,
        watch: ClientWatch,
        deltas: Deltas,
        frame: AnswerFrame,
        meter: GenerationMeter,
    ) -> None:
        """Send events as they come. The first delta decides between an answer and an error,
        unless it is so late that the client needs a sign of life first."""
        writer = ChunkWriter(frame)
        see = meter.see
        write = writer.write
        send = exchange.send
        writes = 0
        seen = 0

        async def ping() -> None:
            nonlocal seen
            if writes == seen and not exchange.complete:
                if not exchange.status:
                    await exchange.start(200, SSE_HEADERS)
                await exchange.write(PING)
            seen = writes

        if self._state.settings.sse_ping_s:
            watch.keep_alive(self._state.settings.sse_ping_s, ping)
        async for delta in deltas:
            if delta.finish_reason == "abort":
                raise aborted()
            see(delta)
            data = write(delta)
            if not exchange.status:
                await exchange.start(200, SSE_HEADERS)
            if data:
                writes += 1
                await send({"type": "http.response.body", "body": data, "more_body": True})
        await exchange.end(writer.finish(meter) + DONE)


async def gather(
    exchange: Exchange, deltas: Deltas, frame: AnswerFrame, meter: GenerationMeter, logprobs: bool
) -> None:
    """Send the answer in one piece."""
    gatherer = AnswerGatherer(frame, logprobs=logprobs)
    async for delta in deltas:
        if delta.finish_reason == "abort":
            raise aborted()
        meter.see(delta)
        gatherer.take(delta)
    await exchange.respond(200, gatherer.body(meter), [JSON_TYPE])


def new_frame(answer_id: str, request: ChatRequest, route: Route) -> AnswerFrame:
    """What every part of the answer to this request shares."""
    info = route.info
    last = request.messages[-1]
    parsers = None
    if request.tools:
        parsers = [ToolCallParser(parallel=request.parallel_tool_calls) for _ in range(request.n)]
    return AnswerFrame(
        id=answer_id,
        created=int(time.time()),
        model=info.id,
        fingerprint=fingerprint(info),
        choices=request.n,
        texts=route.prompts.texts,
        include_usage=request.include_usage,
        prefix=last["content"] if request.echo and last["role"] == "assistant" else "",
        tool_parsers=parsers,
        degraded=route.degraded,
    )


def fingerprint(info: ModelInfo) -> str:
    """Changes with whatever may change the answer to the same request and seed."""
    parts = (__version__, info.source, info.engine, info.quantization, info.device, info.dtype)
    return "fp_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


def aborted() -> GenerationAborted:
    """The error for a generation that the engine ended before its time."""
    return GenerationAborted("The server is shutting down; the answer is not complete.")
