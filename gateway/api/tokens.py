"""POST /tokenize and POST /detokenize, as vLLM has them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import orjson

from gateway.chat.prompt import PromptBuilder
from gateway.chat.raw_prompt import RawPrompts, conversation_ids, in_thread, raw_prompts
from gateway.control.fleet import Fleet
from gateway.http.body import read_json_body
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.http.watch import ClientWatch
from gateway.protocol.json_body import parsed
from gateway.protocol.token_requests import (
    DetokenizeRequest,
    TokenizeRequest,
    read_detokenize_request,
    read_tokenize_request,
)
from gateway.state import GatewayState

R = TypeVar("R", TokenizeRequest, DetokenizeRequest)


class Tokenize:
    """Text or messages to token ids, counted; longer than the context too."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raises what the table of errors knows."""

        def read(document: dict[str, Any]) -> TokenizeRequest:
            strict = self._state.settings_of(exchange).strict_parameters
            return read_tokenize_request(document, strict=strict)

        async def work(builder: PromptBuilder, request: TokenizeRequest) -> bytes:
            ids = None
            if request.prompt is None:
                ids = await conversation_ids(builder, request, self._state.media)
            return await in_thread(tokenized, await raw_prompts(builder), request, ids)

        await respond(self._state, exchange, read, work)


class Detokenize:
    """Token ids to text, special tokens included."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raises what the table of errors knows."""

        def read(document: dict[str, Any]) -> DetokenizeRequest:
            strict = self._state.settings_of(exchange).strict_parameters
            return read_detokenize_request(document, strict=strict)

        async def work(builder: PromptBuilder, request: DetokenizeRequest) -> bytes:
            return await in_thread(detokenized, await raw_prompts(builder), request)

        await respond(self._state, exchange, read, work)


async def respond(
    state: GatewayState,
    exchange: Exchange,
    read: Callable[[dict[str, Any]], R],
    work: Callable[[PromptBuilder, R], Awaitable[bytes]],
) -> None:
    """Read a request, find its model, do the work and answer."""
    settings = state.settings_of(exchange)
    with state.lifecycle.admit() as fleet:
        body = await read_json_body(exchange, settings.max_body_bytes, settings.body_timeout_s)
        async with ClientWatch(exchange):
            request = await parsed(body, read)
            builder = model_of(fleet, exchange, request.model)
            await exchange.respond(200, await work(builder, request), [JSON_TYPE])


def model_of(fleet: Fleet, exchange: Exchange, name: str | None) -> PromptBuilder:
    """The tokeniser of a model by any of its names. Raises what ``Fleet.route`` raises."""
    route = fleet.route(name, exchange.principal, "any")
    exchange.details["model"] = route.info.id
    return route.prompts


def tokenized(raw: RawPrompts, request: TokenizeRequest, ids: list[int] | None) -> bytes:
    """The answer to /tokenize; ``ids`` are None for a prompt."""
    if ids is None:
        text = request.prompt or ""
        ids = list(raw.encode(text, add_special_tokens=request.add_special_tokens).ids)
    return orjson.dumps(
        {
            "count": len(ids),
            "max_model_len": raw.max_model_len,
            "tokens": ids,
            "token_strs": raw.token_strings(ids) if request.return_token_strs else None,
        }
    )


def detokenized(raw: RawPrompts, request: DetokenizeRequest) -> bytes:
    """The answer to /detokenize. Raises InvalidRequest."""
    raw.check_ids(request.tokens, "tokens")
    return orjson.dumps({"prompt": raw.decode(request.tokens)})
