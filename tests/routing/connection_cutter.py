"""A TCP proxy that resets a connection after so many bytes of an answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from urllib.parse import urlsplit


class Cutter:
    """Runs in a thread of its own, on a free port.

    Attributes:
        after: bytes of an answer that pass, or None for all of them.
        last: bytes of the last answer that passed.
    """

    def __init__(self) -> None:
        self.after: int | None = None
        self.last = 0
        self._target = ("127.0.0.1", 0)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        started = threading.Event()

        async def serve() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self._port = server.sockets[0].getsockname()[1]
            started.set()
            await self._stop.wait()
            server.close()

        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(serve()))
        self._thread.start()
        started.wait()

    def url(self, target: str) -> str:
        """Where to reach a server through the cutter."""
        self._target = ("127.0.0.1", urlsplit(target).port or 0)
        return f"http://127.0.0.1:{self._port}"

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        while tasks := asyncio.all_tasks(self._loop):
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        tasks = {
            asyncio.create_task(self._ask(reader, back)),
            asyncio.create_task(self._answer(there, writer)),
        }
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        for end in (writer, back):
            end.transport.abort()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await end.wait_closed()

    async def _ask(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if data.startswith(b"POST "):
                self.last = 0
            back.write(data)

    async def _answer(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await there.read(65536):
            left = len(data) if self.after is None else self.after - self.last
            writer.write(data[:left])
            self.last += len(data)
            if left < len(data):
                await writer.drain()
                return
