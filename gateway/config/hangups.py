"""SIGHUP: read the configuration again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable

from gateway.config.reloader import SIGNAL, Reloader
from gateway.lifecycle import Lifecycle

log = logging.getLogger("gateway.config")

STDIN = 0


class Hangups:
    """Turns signals into reloads, one after the other. Owned by the event loop.

    Args:
        stop: ends the server; a terminal that closes sends this signal too.
    """

    def __init__(self, reloader: Reloader, lifecycle: Lifecycle, stop: Callable[[], None]) -> None:
        self._reloader = reloader
        self._stop = stop
        self._begun = asyncio.Event()
        self._asked = asyncio.Event()
        self._in_terminal = os.isatty(STDIN)
        self._task: asyncio.Task[None] | None = None
        lifecycle.starters.append(self._begun.set)
        lifecycle.drainers.append(self._end)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take signals from now on; those before the server is ready wait until it is."""
        self._task = loop.create_task(self._work())
        loop.add_signal_handler(signal.SIGHUP, self._on_signal)

    def _on_signal(self) -> None:
        if self._in_terminal and not os.isatty(STDIN):
            self._stop()  # nobody could end it with Ctrl-C any more
        else:
            self._asked.set()

    async def _work(self) -> None:
        await self._begun.wait()
        while True:
            await self._asked.wait()
            self._asked.clear()
            # What went wrong is in the log already.
            with contextlib.suppress(Exception):
                await self._reloader.reload(SIGNAL)

    async def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
