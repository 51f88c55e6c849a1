"""Joins what is written to one connection within one turn of the event loop.

uvloop hands every write to the kernel at once. The tokens that one step of an engine makes for
the choices or prompts of one request come one after the other, without a pause between them:
together they need one system call, not one each.
"""

from __future__ import annotations

import asyncio
from typing import Any

# Beyond this, data goes out at once, so that the transport can tell its writer to wait.
MOST_HELD_BYTES = 64 * 1024


class JoinedWrites:
    """Stands in front of a transport; everything but writing and ending goes straight there."""

    __slots__ = ("_held", "_held_bytes", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held: list[bytes] = []
        self._held_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send it by the end of this turn of the loop."""
        if not self._held:
            self._loop.call_soon(self.flush)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > MOST_HELD_BYTES:
            self.flush()

    def write_now(self, data: bytes) -> None:
        """Send it at once, behind what is held: for whoever writes once in a turn."""
        if self._held:
            self.flush()
        if not self._transport.is_closing():
            self._transport.write(data)

    def flush(self) -> None:
        """Send what is held, unless the connection is gone."""
        held = self._held
        if held:
            self._held, self._held_bytes = [], 0
            if self._transport.is_closing():
                return
            self._transport.write(held[0] if len(held) == 1 else b"".join(held))

    def write_eof(self) -> None:
        """Send what is held, and the end."""
        self.flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Send what is held and close."""
        self.flush()
        self._transport.close()
