"""One response of server-sent events: begins with the first write, pings while it is silent."""

from __future__ import annotations

from collections.abc import Awaitable

from gateway.http.connection import CLIENT_LINE, ClientLine
from gateway.http.exchange import Exchange
from gateway.http.watch import ClientWatch
from gateway.protocol.sse import PING, SSE_HEADERS


class SseStream:
    """Writes events to an exchange.

    From its making on, ``ping`` is sent whenever nothing was written for ``ping_s`` seconds,
    also before the first event: the response is a 200 from then on, and an error can only be
    an event. ``ping_s`` of 0 turns that off.
    """

    __slots__ = ("_exchange", "_ping", "_put", "_seen", "_writes")

    def __init__(
        self, exchange: Exchange, watch: ClientWatch, ping_s: float, ping: bytes = PING
    ) -> None:
        self._exchange = exchange
        self._ping = ping
        line: ClientLine | None = exchange.scope.get(CLIENT_LINE)
        self._put = line.write if line is not None else None
        self._writes = 0
        self._seen = 0
        if ping_s:
            watch.keep_alive(ping_s, self._show_life)

    def push(self, data: bytes) -> bool:
        """Send ``data``, one or more whole events, if that needs no waiting; False where
        ``write`` has to be awaited instead. This runs for every token."""
        if self._put is None or not self._put(data):
            return False
        self._writes += 1
        return True

    @property
    def wrote(self) -> bool:
        """Whether more than signs of life has been sent."""
        return self._writes > 0

    def write(self, data: bytes) -> Awaitable[None]:
        """Send ``data``, one or more whole events; await it. Nothing is sent for no data, but
        the response has begun."""
        if self._exchange.status and data:
            self._writes += 1
            # Handed on without a coroutine of its own.
            return self._exchange.send(
                {"type": "http.response.body", "body": data, "more_body": True}
            )
        return self._begin(data)

    async def end(self, data: bytes) -> None:
        """Send the last events and end the response."""
        if not self._exchange.status:
            await self._exchange.start(200, SSE_HEADERS)
        await self._exchange.end(data)

    async def _begin(self, data: bytes) -> None:
        if not self._exchange.status:
            await self._exchange.start(200, SSE_HEADERS)
        if data:
            self._writes += 1
            await self._exchange.write(data)

    async def _show_life(self) -> None:
        exchange = self._exchange
        if self._writes == self._seen and not exchange.complete:
            if not exchange.status:
                await exchange.start(200, SSE_HEADERS)
            await exchange.write(self._ping)
        self._seen = self._writes
