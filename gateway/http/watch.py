"""Watches for the client's departure while work goes on, from admission to the last byte.

Nobody else listens then: an ASGI application learns of a lost client only from ``receive``,
which is not called during a prefill or while an answer is gathered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Protocol, Self

from gateway.errors import ClientGone
from gateway.http.connection import CLIENT_LINE
from gateway.http.exchange import Exchange


class Line(Protocol):
    """Knows when a client is gone."""

    def watch(self, left: Callable[[], None] | None) -> None:
        """Have ``left`` called when it is; None ends that."""


class ClientWatch:
    """Cancels the surrounding task when the client leaves; raises ClientGone from the block.

    Enter it after the body has been read. ``keep_alive`` has something
    done at intervals, so that a quiet stream can show that it is alive.
    Works like ``asyncio.timeout``: a cancellation from elsewhere stays a cancellation.
    """

    __slots__ = ("_cancelling", "_exchange", "_gone", "_line", "_task", "_ticker")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._line: Line = exchange.scope.get(CLIENT_LINE) or AsgiLine(exchange)
        self._gone = False
        self._ticker: Ticker | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("ClientWatch needs a running task")
        self._task = task
        self._cancelling = task.cancelling()
        self._line.watch(self._left)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._line.watch(None)
        if self._ticker is not None:
            self._ticker.stop()
        if self._gone:
            ours = self._task.uncancel() <= self._cancelling
            if ours and (kind is None or issubclass(kind, asyncio.CancelledError)):
                raise ClientGone from error

    def keep_alive(self, every_s: float, act: Callable[[], Awaitable[None]]) -> None:
        """Call ``act`` every ``every_s`` seconds until the block ends or the next call."""
        if self._ticker is not None:
            self._ticker.stop()
        self._ticker = Ticker(every_s, act)

    def _left(self) -> None:
        if self._exchange.complete or self._gone:
            return  # a finished response ends the same way
        self._gone = True
        self._task.cancel()


class Ticker:
    """Calls ``act`` every ``every_s`` seconds. A task is made when it is due: most streams end
    before that."""

    __slots__ = ("_act", "_every_s", "_task", "_timer")

    def __init__(self, every_s: float, act: Callable[[], Awaitable[None]]) -> None:
        self._every_s = every_s
        self._act = act
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(every_s, self._begin)

    def stop(self) -> None:
        """Call it no more; a call that is under way is cancelled."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self._act()
            await asyncio.sleep(self._every_s)


class AsgiLine:
    """For connections that are not the gateway's own: listens to ``receive``."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._listening: asyncio.Task[Any] | None = None

    def watch(self, left: Callable[[], None] | None) -> None:
        """See ``Line``."""
        if self._listening is not None:
            self._listening.cancel()
        self._listening = None if left is None else asyncio.create_task(self._listen(left))

    async def _listen(self, left: Callable[[], None]) -> None:
        while (await self._exchange.receive())["type"] != "http.disconnect":
            pass
        left()
