"""The route that Vertex AI names for predictions: its own shape, or a body passed on as it is.

Vertex sends ``:predict``, ``:rawPredict`` and ``:streamRawPredict`` to the one AIP_PREDICT_ROUTE.
Only the first is bound to ``instances``; the others carry any body, and only the last streams.
"""

from __future__ import annotations

from typing import Any

from gateway.http.body import read_json_body
from gateway.http.edge import HotHandler
from gateway.http.exchange import ASGIMessage, Exchange
from gateway.protocol.json_body import parsed
from gateway.state import GatewayState


class VertexPredict:
    """The handler: a body with ``messages`` is a chat completion, one with ``prompt`` a
    completion, and anything else is a prediction, well-formed or not."""

    def __init__(
        self,
        state: GatewayState,
        predict: HotHandler,
        chat: HotHandler,
        completions: HotHandler,
    ) -> None:
        self._state = state
        self._predict = predict
        self._by_field = {"messages": chat, "prompt": completions}

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; raises what the table of errors knows."""
        settings = self._state.settings_of(exchange)
        with self._state.lifecycle.admit():
            body = await read_json_body(exchange, settings.max_body_bytes, settings.body_timeout_s)
            handler = await parsed(body, self._choose)
        # The handler asks for its place itself: two would count the request twice.
        unread(exchange, body)
        del body
        await handler(exchange)

    def _choose(self, document: dict[str, Any]) -> HotHandler:
        if "instances" in document:
            return self._predict
        found = (handler for field, handler in self._by_field.items() if field in document)
        return next(found, self._predict)


def unread(exchange: Exchange, body: bytes) -> None:
    """Have ``receive`` give the whole body once more, and then what comes after it."""
    receive = exchange.receive
    kept = [body]

    async def again() -> ASGIMessage:
        if kept:
            return {"type": "http.request", "body": kept.pop(), "more_body": False}
        return await receive()

    exchange.receive = again
