"""POST /v1/embeddings."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from engine.base import EmbedRequest, EngineDead, ModelInfo
from gateway.api.dispatched import DispatchedHandler
from gateway.chat.caller import Caller
from gateway.control.fleet import Fleet, Route
from gateway.embedding.inputs import token_ids
from gateway.errors import PromptTimeout
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.http.watch import ClientWatch
from gateway.protocol.embedding_answer import embedding_answer
from gateway.protocol.embedding_request import EmbeddingRequest, read_embedding_request
from gateway.protocol.json_body import parse_object
from gateway.routing.marks import tell_target
from gateway.state import GatewayState

# Work beyond these sizes would be felt by other streams, so it moves to a thread.
PARSE_INLINE_BYTES = 64 * 1024
WRITE_INLINE_FLOATS = 16 * 1024
TOKENIZE_TIMEOUT_S = 30.0
THREADS = 2

T = TypeVar("T")


class Embeddings(DispatchedHandler):
    """The handler: parse, admit, tokenise, embed, answer."""

    api = "embeddings"

    def __init__(self, state: GatewayState) -> None:
        super().__init__(state)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="embeddings")

    async def _local(
        self, exchange: Exchange, watch: ClientWatch, fleet: Fleet, body: bytes
    ) -> None:
        request = await self._parse(exchange, body)
        del body
        answer = await self._answer(exchange, fleet, request)
        await exchange.respond(200, answer, [JSON_TYPE])

    async def _parse(self, exchange: Exchange, body: bytes) -> EmbeddingRequest:
        strict = self._state.settings_of(exchange).strict_parameters

        def parse() -> EmbeddingRequest:
            return read_embedding_request(parse_object(body), strict=strict)

        return parse() if len(body) <= PARSE_INLINE_BYTES else await self._in_thread(parse)

    async def _answer(self, exchange: Exchange, fleet: Fleet, request: EmbeddingRequest) -> bytes:
        """Answer from the replica the fleet chooses; choose again when it dies."""
        while True:
            route = fleet.route(request.model, exchange.principal, "embeddings", exchange.ask)
            tell_target(exchange.marks, exchange.details, route, exchange.ask)
            exchange.details["inputs"] = len(request.inputs)
            try:
                return await self._embed(exchange, route, request)
            except EngineDead:
                continue  # the fleet knows of the death now, so this ends with the last replica

    async def _embed(self, exchange: Exchange, route: Route, request: EmbeddingRequest) -> bytes:
        info = route.info
        self._state.admission.refuse_early(route, exchange.priority)
        prompts = await self._tokenize(info, request)
        tokens = sum(map(len, prompts))
        asked = EmbedRequest(
            request_id=f"embd-{os.urandom(12).hex()}",
            prompts=prompts,
            dimensions=request.dimensions,
            normalize=request.normalize,
        )
        work = Caller.of(exchange).work(
            asked.request_id, route, prompt_tokens=tokens, max_tokens=0, is_capped=True, choices=0
        )
        route.take_on(work)  # from here on, so that what waits for a replica counts there
        try:
            async with self._state.gate.enter(work):
                made = await route.embed(replace(asked, priority=work.priority))
                work.used.prompt_tokens = tokens
        finally:
            route.let_go(work)
        metrics = self._state.lifecycle.metrics.models[info.id]
        metrics.prompt_tokens += tokens
        metrics.queue.observe(made.queue_s)
        metrics.end_to_end.observe(time.perf_counter() - exchange.started)
        metrics.finished["stop"] += len(prompts)
        exchange.details["prompt_tokens"] = tokens
        exchange.details["admission_ms"] = round(work.used.admission_s * 1000, 2)
        exchange.details["queue_ms"] = round(made.queue_s * 1000, 2)

        def write() -> bytes:
            return embedding_answer(made.vectors, info.id, tokens, as_base64=request.base64)

        inline = made.vectors.size <= WRITE_INLINE_FLOATS
        return write() if inline else await self._in_thread(write)

    async def _tokenize(self, info: ModelInfo, request: EmbeddingRequest) -> list[list[int]]:
        """Token ids of every input; raises InvalidRequest or PromptTimeout."""
        abandoned = threading.Event()
        try:
            async with asyncio.timeout(TOKENIZE_TIMEOUT_S):
                return await self._in_thread(lambda: token_ids(info, request, abandoned))
        except TimeoutError:
            raise PromptTimeout("Tokenising the inputs took too long.") from None
        finally:
            abandoned.set()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, context.run, work)
