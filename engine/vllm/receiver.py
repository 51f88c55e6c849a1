"""Receives EngineCore's messages with few calls into ZeroMQ.

pyzmq's asynchronous socket asks for the socket's state half a dozen times for every message,
which costs more than all that happens to a message of one token afterwards.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any


class Receiver:
    """Stands in for a ``zmq.asyncio`` socket where only ``recv_multipart`` is called.

    Made on the event loop that receives. ``close`` it before the loop ends.

    Args:
        socket: the socket itself, which nobody else receives from.
    """

    def __init__(self, socket: Any) -> None:
        import zmq

        self._zmq: Any = zmq
        self._socket = socket
        self._plain: Any = zmq.Socket.shadow(socket.underlying)
        self._loop = asyncio.get_running_loop()
        # A descriptor of its own: the socket's is gone, or another file's, once it is closed.
        self._fd = os.dup(socket.FD)
        self._waiter: asyncio.Future[None] | None = None
        self._listening = False
        self._closed = False

    async def recv_multipart(self, copy: bool = True) -> list[Any]:
        """The frames of the next message. Raises zmq.ZMQError once the socket is closed."""
        frame = self._next() if self._is_readable() else None
        while frame is None:
            if not self._listening:
                self._loop.add_reader(self._fd, self._on_readable)
                self._listening = True
            self._waiter = self._loop.create_future()
            await self._waiter
            frame = self._next()
        frames = [frame]
        while frame.more:
            frame = self._plain.recv(self._zmq.NOBLOCK, copy=False)
            frames.append(frame)
        return [frame.bytes for frame in frames] if copy else frames

    def close(self) -> None:
        """Stop listening. Idempotent."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._fd)
            os.close(self._fd)

    def _is_readable(self) -> bool:
        """Whether a message is there. Asking, or failing to receive, is also what makes the
        descriptor quiet until the next one."""
        self._check_open()
        return bool(int(self._plain.get(self._zmq.EVENTS)) & 1)

    def _next(self) -> Any:
        """The first frame of a message, or None."""
        self._check_open()
        try:
            return self._plain.recv(self._zmq.NOBLOCK, copy=False)
        except self._zmq.Again:
            return None

    def _check_open(self) -> None:
        # The plain view does not learn that the socket was closed, and must not touch it then.
        if self._closed or self._socket.closed:
            raise self._zmq.ZMQError(self._zmq.ENOTSOCK)

    def _on_readable(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            self._loop.remove_reader(self._fd)
            self._listening = False
        elif not waiter.done():
            waiter.set_result(None)
