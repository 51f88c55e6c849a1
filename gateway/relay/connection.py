"""One HTTP/1.1 connection to another server, and one response at a time on it.

Parsed by llhttp, through httptools. Reading stops while nobody takes what has arrived, so a slow
client slows its own upstream and no memory fills up.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

import httptools

from gateway.relay.errors import Broken, NotUnderstood, Silent, Unreachable, UpstreamFault

MOST_HEAD_BYTES = 64 * 1024
HIGH_WATER = 256 * 1024


class Connection(asyncio.Protocol):
    """Made by ``ConnectionPool``.

    Attributes:
        status, headers: of the current response, once ``head`` has returned; names lower case.
        used: responses that were read from it before the current one.
        idle_since: ``time.monotonic()`` of the last release.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self.used = 0
        self.idle_since = 0.0
        self._writable: asyncio.Future[None] | None = None
        self._active = False
        self._silence: asyncio.TimerHandle | None = None
        self._idle_s = self._silent_at = 0.0
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self._parser: Any = httptools.HttpResponseParser(self)
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._head_bytes = 0
        self._has_head = False
        self._complete = False
        self._reusable = False
        self._until_close = False
        self._fault: UpstreamFault | None = None

    @property
    def open(self) -> bool:
        """Whether it can take a request."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether the response has been read to its end and another may follow."""
        return self.open and self.ended and self._reusable

    @property
    def ended(self) -> bool:
        """Whether the response has been read to its end."""
        return self._complete and not self._chunks

    async def request(self, data: bytes, first_byte_s: float) -> None:
        """Send a whole request and wait for status and headers of the answer.

        Raises Unreachable, Silent when they are not there after ``first_byte_s`` seconds, and
        other UpstreamFaults.
        """
        if self._transport is None or not self.open:
            raise Unreachable("the connection was closed", stale=self.used > 0)
        self._reset()
        self._active = True
        self._transport.write(data)
        self._expect(first_byte_s)
        if self._writable is not None:
            await self._writable
        while not self._has_head:
            if self._fault is not None:
                raise self._fault
            await self._wait()

    async def read(self, idle_s: float) -> bytes:
        """All of the body that has arrived, at least a byte; b"" at its end.

        Raises UpstreamFault when it ends before its end, and Silent when nothing comes for
        ``idle_s`` seconds.
        """
        while not self._chunks:
            if self._complete:
                return b""
            if self._fault is not None:
                raise self._fault
            self._expect(idle_s)
            await self._wait()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        if self._size > HIGH_WATER and self._transport is not None:
            self._transport.resume_reading()
        self._size = 0
        return data

    def release(self) -> None:
        """The response is done with; ``reusable`` says whether the connection is."""
        self._active = False
        self.used += 1
        self.idle_since = time.monotonic()

    def close(self) -> None:
        """Close at once, which is also how a request is taken back."""
        self._active = False
        self._expect_nothing()
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expect(self, idle_s: float) -> None:
        """Something has to come within ``idle_s`` seconds. This runs for every token, so one
        timer stays, beyond the response as well, and looks, when it is due, whether the time
        has been put off."""
        self._idle_s = idle_s
        self._silent_at = due = self._loop.time() + idle_s
        if self._silence is None or self._silence.when() > due:
            self._expect_nothing()
            self._silence = self._loop.call_at(due, self._look)

    def _expect_nothing(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None

    def _look(self) -> None:
        self._silence = None
        is_read = self._waiter is not None and not self._waiter.done()
        is_written = self._active and self._writable is not None
        if not is_read and not is_written:
            return  # whoever reads is busy elsewhere, and expects anew when it comes back
        if self._loop.time() < self._silent_at:
            self._silence = self._loop.call_at(self._silent_at, self._look)
        elif self._has_head:
            self._fail(Silent(f"silent for {self._idle_s:g} s within an answer"))
        else:
            self._fail(Silent(f"no answer began within {self._idle_s:g} s"))

    def _fail(self, fault: UpstreamFault) -> None:
        if self._fault is None and not self._complete:
            self._fault = fault
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Bytes of a response; none is expected on an idle connection."""
        if not self._active or self._complete:
            self._reusable = False
            self.close_quietly()
            return
        if not self._has_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(NotUnderstood(f"not an HTTP response: {error}"))
            return
        if not self._has_head and self._head_bytes > MOST_HEAD_BYTES:
            self._fail(NotUnderstood("the response's head is too large"))
            return
        self._wake()

    def close_quietly(self) -> None:
        """Close without telling whoever still reads what has arrived."""
        if self._transport is not None:
            self._transport.abort()

    def eof_received(self) -> bool:
        """The server is done; the transport closes itself."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Whatever the reason, nothing more comes."""
        self._transport = None
        self._expect_nothing()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if not self._active or self._complete:
            return
        if self._has_head and self._until_close and exc is None:
            self._complete = True
        elif self._fault is None:
            unread = not self._head_bytes
            text = "the connection ended " + ("before" if unread else "in") + " the response"
            self._fault = Broken(text, stale=unread and self.used > 0)
        self._wake()

    def pause_writing(self) -> None:
        """The server is slow to read a large request."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; of equal names the first counts."""
        if not self._complete:
            self.headers.setdefault(name.lower(), value)

    def on_headers_complete(self) -> None:
        """The head is whole; 1xx are skipped."""
        if self._complete:  # a second response that nobody asked for
            self._reusable = False
            return
        status = self._parser.get_status_code()
        if status < 200:
            self.headers.clear()
            if status == 101:
                self._fault = NotUnderstood("the server switches protocols")
            return
        self.status = status
        self._has_head = True
        chunked = b"chunked" in self.headers.get(b"transfer-encoding", b"").lower()
        self._until_close = not chunked and b"content-length" not in self.headers

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._complete:
            self._reusable = False
            return
        self._chunks.append(data)
        before = self._size
        self._size += len(data)
        if before <= HIGH_WATER < self._size and self._transport is not None:
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """The response is whole."""
        if self._has_head and not self._complete:
            self._complete = True
            self._reusable = bool(self._parser.should_keep_alive())
