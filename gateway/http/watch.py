"""Watches for the client's departure while work goes on, from admission to the last byte.

Nobody else listens then: an ASGI application learns of a lost client only from ``receive``,
which is not called during a prefill or while an answer is gathered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from gateway.errors import ClientGone
from gateway.http.exchange import Exchange


class ClientWatch:
    """Cancels the surrounding task when the client leaves; raises ClientGone from the block.

    Enter it after the body has been read. ``keep_alive`` has something
    done at intervals, so that a quiet stream can show that it is alive.
    Works like ``asyncio.timeout``: a cancellation from elsewhere stays a cancellation.
    """

    __slots__ = ("_cancelling", "_exchange", "_gone", "_task", "_ticker", "_watcher")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._gone = False
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("ClientWatch needs a running task")
        self._task = task
        self._cancelling = task.cancelling()
        self._watcher = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._watcher.cancel()
        if self._ticker is not None:
            self._ticker.cancel()
        if self._gone:
            ours = self._task.uncancel() <= self._cancelling
            if ours and (kind is None or issubclass(kind, asyncio.CancelledError)):
                raise ClientGone from error

    def keep_alive(self, every_s: float, act: Callable[[], Awaitable[None]]) -> None:
        """Call ``act`` every ``every_s`` seconds until the block ends or the next call."""
        if self._ticker is not None:
            self._ticker.cancel()
        self._ticker = asyncio.create_task(self._tick(every_s, act))

    async def _tick(self, every_s: float, act: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(every_s)
            await act()

    async def _watch(self) -> None:
        while (await self._exchange.receive())["type"] != "http.disconnect":
            pass
        if self._exchange.complete:
            return  # a finished response ends ``receive`` the same way
        self._gone = True
        self._task.cancel()
