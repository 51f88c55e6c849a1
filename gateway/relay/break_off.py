"""The end of an answer that is not whole."""

from __future__ import annotations

import orjson

from gateway.errors import HookFailed, UpstreamUnavailable, answer
from gateway.http.exchange import Exchange
from gateway.http.sse_stream import SseStream
from gateway.protocol.response_events import error_event
from gateway.routing.config import Api


def broke_off() -> UpstreamUnavailable:
    """The error for an answer that its server did not end."""
    return UpstreamUnavailable(
        "The server that was answering broke off; the answer is not complete."
    )


async def break_off(
    error: UpstreamUnavailable | HookFailed, exchange: Exchange, api: Api, sse: SseStream | None
) -> None:
    """Send the error event of the Responses API where such a stream has begun; raise the error
    for everything else, whose error events are made where errors are answered."""
    if api != "responses" or sse is None or not exchange.status:
        raise error from None
    told = answer(error, exchange.request_id)
    exchange.outcome = "failed"
    exchange.error_code = told.code
    body = orjson.loads(told.body)["error"]
    await sse.end(error_event(body["message"], body["type"], None, told.code))
