"""uvicorn's httptools connection with the bounds that a public server needs.

Added: a bound on the size of a request head (431) and on the time it may take (408), malformed
requests answered in OpenAI's error shape, a client that stops reading is cut off, and a client
that pipelines requests and leaves is noticed for the request that is running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.errors import CALLER, envelope
from gateway.http.joined_writes import JoinedWrites

LINGER_S = 1.0
MAX_PIPELINED = 8
MAX_PIPELINED_BODY = 64 * 1024
# Where a request's scope holds its ``ClientLine``.
CLIENT_LINE = "gateway.client_line"


class ClientLine:
    """A shorter way than ASGI's messages between a request and its connection.

    A message, a coroutine and often a task for each thing cost more than the thing itself. Only
    what needs no waiting and no bookkeeping goes this way; uvicorn does the rest.
    """

    __slots__ = ("_cycle", "_left")

    def __init__(self, cycle: Any) -> None:
        self._cycle = cycle
        self._left: Callable[[], None] | None = None

    def write(self, body: bytes) -> bool:
        """Write a part of a chunked response, which is not empty; False where it has to be sent
        with ``send``."""
        cycle = self._cycle
        if (
            not cycle.chunked_encoding  # or headers have not been sent
            or cycle.flow.write_paused
            or cycle.disconnected
            or cycle.response_complete
        ):
            return False
        cycle.transport.write_now(b"%x\r\n%b\r\n" % (len(body), body))
        return True

    def whole_body(self) -> bytes | None:
        """The request's body if all of it is here and nobody has taken any; it is taken then."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or not cycle.message_event.is_set():
            return None
        body = bytes(cycle.body)
        cycle.body = bytearray()
        cycle.message_event.clear()
        cycle.flow.resume_reading()
        return body

    def watch(self, left: Callable[[], None] | None) -> None:
        """Have ``left`` called when the client is gone, at once if it is; None ends that."""
        self._left = left
        if left is None:
            return
        # A large body may have left reading paused, and then no end of the connection is seen.
        self._cycle.flow.resume_reading()
        if self._cycle.disconnected:
            self.tell_gone()

    def tell_gone(self) -> None:
        """The client is gone."""
        if self._left is not None:
            self._left()


class GatewayConnection(HttpToolsProtocol):
    """One client connection. Bounds are class attributes; see ``bounded``."""

    max_head_bytes: int
    head_timeout_s: float
    write_timeout_s: float

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._refused = False
        self._running: Any = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = JoinedWrites(transport, self.loop)  # type: ignore[assignment]
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_write_timer()
        # uvicorn tells the newest request only; with pipelining that is not the running one.
        running = self._running
        if running is not None and not running.response_complete:
            self._end(running)
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._reading_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._reading_head:
            if self._head_bytes > self.max_head_bytes:
                self._refuse_head()
        elif self._idle and self.timeout_keep_alive_task is None and self._head_timer is None:
            # Line breaks between requests stopped the idle timer without starting a request.
            self._start_head_timer()

    @property
    def _idle(self) -> bool:
        return self._running is None or bool(self._running.response_complete)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._reading_head:
            self._reading_head = True
            self._head_bytes = 0
            self._start_head_timer()

    def on_headers_complete(self) -> None:
        if self._refused:
            return
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        self._reading_head = False
        self._stop_head_timer()
        if size > self.max_head_bytes:
            self._refuse_head()
            return
        super().on_headers_complete()
        if self.pipeline:
            # Reading goes on, so that the end of the connection is seen.
            self.flow.resume_reading()
            if len(self.pipeline) > MAX_PIPELINED:
                self.transport.abort()

    def on_body(self, body: bytes) -> None:
        if self._refused or self.cycle is None:
            return
        super().on_body(body)
        if self.pipeline and len(self.cycle.body) > MAX_PIPELINED_BODY:
            self.transport.abort()

    def on_message_complete(self) -> None:
        if self._refused or self.cycle is None:
            return
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.write_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_write_timer()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "The request is not valid HTTP.", "invalid_http")

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._running = cycle
        if cycle.scope["method"] != "HEAD":
            cycle.scope[CLIENT_LINE] = ClientLine(cycle)
        super()._start_asgi_task(cycle, app)

    def _unsupported_upgrade_warning(self) -> None:
        """Stay silent: the request is answered as if it had not asked for an upgrade."""

    def _refuse_head(self) -> None:
        self._refuse(
            431,
            f"The request head is larger than {self.max_head_bytes} bytes.",
            "request_header_fields_too_large",
        )

    def _refuse(self, status: int, message: str, code: str) -> None:
        """Answer outside the application and close; for what never becomes a request."""
        self._refused = True
        self._stop_head_timer()
        if self.transport.is_closing():
            return
        if self._may_answer():
            body = envelope(message, CALLER, None, code)
            self.transport.write(
                STATUS_LINE[status]
                + b"content-type: application/json\r\nconnection: close\r\ncontent-length: "
                + str(len(body)).encode()
                + b"\r\n\r\n"
                + body
            )
        # Closing with unread input makes the kernel send a reset, which can destroy the answer
        # before the client has read it. Input is dropped for a moment instead.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _may_answer(self) -> bool:
        """Whether an answer here would not land in the middle of another; ends a request whose
        own body is at fault."""
        running = self._running
        if self._idle:
            return True
        if running is not self.cycle or running.response_started:
            return False
        self._end(running)
        return True

    def _end(self, running: Any) -> None:
        """Tell a request that its client is gone."""
        running.disconnected = True
        running.message_event.set()
        if (line := running.scope.get(CLIENT_LINE)) is not None:
            line.tell_gone()

    def _start_head_timer(self) -> None:
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._head_is_late)

    def _head_is_late(self) -> None:
        if self._head_bytes:
            self._refuse(408, "The request head did not arrive in time.", "request_timeout")
        else:
            self.transport.close()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def bounded(
    max_head_bytes: int, head_timeout_s: float, write_timeout_s: float
) -> type[GatewayConnection]:
    """The connection class with these bounds; uvicorn makes one instance per connection."""
    return type(
        "BoundedConnection",
        (GatewayConnection,),
        {
            "max_head_bytes": max_head_bytes,
            "head_timeout_s": head_timeout_s,
            "write_timeout_s": write_timeout_s,
        },
    )
