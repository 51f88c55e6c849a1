"""POST /predict, and the same on the route that Vertex AI names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from engine.base import RequestRejected
from gateway.api.chat import complete_chat
from gateway.api.completions import complete
from gateway.chat.caller import Caller
from gateway.control.fleet import Fleet
from gateway.control.limits.headers import PREFIXES
from gateway.control.prices import PriceTable
from gateway.errors import InvalidRequest
from gateway.http.body import read_json_body
from gateway.http.exchange import JSON_TYPE, Exchange
from gateway.http.watch import ClientWatch
from gateway.protocol.chat_request import ChatRequest
from gateway.protocol.completion_request import CompletionRequest
from gateway.protocol.json_body import parsed
from gateway.protocol.predict import PredictRequest, read_predict_request
from gateway.state import GatewayState

# Instances of one call that are worked on at a time.
AT_ONCE = 32
COUNTED = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")


class Predict:
    """The handler: all instances are checked, then all answered, or none."""

    def __init__(self, state: GatewayState) -> None:
        self._state = state

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raises what the table of errors knows."""
        settings = self._state.settings_of(exchange)
        with self._state.lifecycle.admit() as fleet:
            body = await read_json_body(exchange, settings.max_body_bytes, settings.body_timeout_s)
            async with ClientWatch(exchange):
                request = await parsed(body, self._reader(exchange))
                del body
                answers = await self._answers(exchange, fleet, request)
                shown = answers[0] if request.unwrapped else b"[" + b",".join(answers) + b"]"
                await exchange.respond(200, b'{"predictions":' + shown + b"}", [JSON_TYPE])

    def _reader(self, exchange: Exchange) -> Callable[[dict[str, Any]], PredictRequest]:
        strict = self._state.settings_of(exchange).strict_parameters
        return lambda document: read_predict_request(document, strict=strict)

    async def _answers(
        self, exchange: Exchange, fleet: Fleet, request: PredictRequest
    ) -> list[bytes]:
        mine = Caller.of(exchange)
        callers = [replace(mine, details={}, marks=[]) for _ in request.instances]

        def work(position: int) -> Callable[[], Awaitable[bytes]]:
            async def answer() -> bytes:
                instance = request.instances[position]
                try:
                    return await self._answer(fleet, instance, callers[position])
                except (InvalidRequest, RequestRejected) as error:
                    raise request.relocated(error, position) from None

            return answer

        try:
            return await in_order([work(index) for index in range(len(callers))], AT_ONCE)
        finally:
            tell(exchange, callers, self._state.prices)

    async def _answer(
        self, fleet: Fleet, instance: ChatRequest | CompletionRequest, caller: Caller
    ) -> bytes:
        if isinstance(instance, CompletionRequest):
            return await complete(self._state, fleet, instance, caller)
        return await complete_chat(self._state, fleet, instance, caller)


async def in_order(works: Sequence[Callable[[], Awaitable[bytes]]], most: int) -> list[bytes]:
    """What all of them give, in order; at most ``most`` run at a time. The first failure ends
    the others and is raised."""
    seats = asyncio.Semaphore(most)

    async def seated(work: Callable[[], Awaitable[bytes]]) -> bytes:
        async with seats:
            return await work()

    tasks = [asyncio.create_task(seated(work)) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def tell(exchange: Exchange, callers: list[Caller], prices: PriceTable) -> None:
    """Sum the log fields of all instances, and say who answered and what that costs."""
    details = exchange.details
    details["instances"] = len(callers)
    for name in COUNTED:
        details[name] = sum(caller.details.get(name, 0) for caller in callers)
    details["usd"] = sum(prices.usd_of(caller.details) for caller in callers)
    for caller in callers:
        for mark in caller.marks:
            if mark not in exchange.marks and not mark[0].startswith(PREFIXES):
                exchange.marks.append(mark)
    limits = (mark for caller in callers for mark in caller.marks if mark[0].startswith(PREFIXES))
    exchange.marks.extend(dict(limits).items())
    models = sorted({caller.details["model"] for caller in callers if "model" in caller.details})
    if models:
        details["model"] = ",".join(models)
