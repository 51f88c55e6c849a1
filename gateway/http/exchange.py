"""One request and its response: what arrived, what was sent, how it ended."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Literal

from gateway.control.auth import ANONYMOUS
from gateway.control.rights import Principal
from gateway.errors import ErrorAnswer
from gateway.protocol.anthropic_errors import speaks_anthropic
from gateway.routing.ask import Ask

if TYPE_CHECKING:
    from gateway.settings import Settings

ASGIMessage = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[ASGIMessage]]
Send = Callable[[ASGIMessage], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Outcome = Literal["completed", "cancelled", "failed", "rejected", "shed"]

JSON_TYPE = (b"content-type", b"application/json")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class Exchange:
    """Owns ``receive`` and ``send`` of one HTTP request.

    Attributes:
        headers: request headers by lower-case name; the last one counts.
        request_id: from ``x-request-id`` when well-formed, otherwise made here.
        started: ``time.perf_counter()`` at arrival.
        status: of the response, or 0 while none has begun.
        complete: whether the last byte has been handed over.
        outcome: set once, by whoever knows best how it ended.
        details: further fields of the access log line.
        marks: further response headers, for whatever is sent next.
        priority: of the generation asked for; larger runs later, as in GenerateRequest.
        deadline: ``time.perf_counter()`` after which nobody wants the answer, or None.
        settings: in force when it arrived; None for work that no connection asked for.
        ask: what routing has decided, or None where it has nothing to decide.
    """

    __slots__ = (
        "ask",
        "complete",
        "deadline",
        "details",
        "error_code",
        "headers",
        "marks",
        "method",
        "outcome",
        "path",
        "principal",
        "priority",
        "receive",
        "request_id",
        "route",
        "scope",
        "send",
        "settings",
        "started",
        "status",
    )

    def __init__(self, scope: ASGIMessage, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.route = "unknown"
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = read_request_id(self.headers.get(b"x-request-id"))
        self.principal: Principal = ANONYMOUS
        self.priority = 0
        self.settings: Settings | None = None
        self.ask: Ask | None = None
        self.deadline: float | None = None
        self.started = time.perf_counter()
        self.status = 0
        self.complete = False
        self.outcome: Outcome | None = None
        self.error_code: str | None = None
        self.details: dict[str, Any] = {}
        self.marks: Headers = []

    def own_headers(self) -> Headers:
        """Headers that every response carries."""
        elapsed_ms = (time.perf_counter() - self.started) * 1000
        headers = [
            (b"x-request-id", self.request_id.encode()),
            (b"openai-processing-ms", b"%d" % round(elapsed_ms)),
            *self.marks,
        ]
        if speaks_anthropic(self.path):
            headers.append((b"request-id", self.request_id.encode()))
        return headers

    async def start(self, status: int, headers: Headers) -> None:
        """Send status line and headers."""
        self.status = status
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": headers + self.own_headers(),
            }
        )

    async def write(self, body: bytes) -> None:
        """Send part of the body; waits while the client is slow to read."""
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        """Send the last part of the body."""
        self.complete = True
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def respond(self, status: int, body: bytes, headers: Headers) -> None:
        """Send a complete response."""
        length = (b"content-length", b"%d" % len(body))
        await self.start(status, [*headers, length])
        await self.end(body)

    async def respond_error(self, error: ErrorAnswer) -> None:
        """Send an error, reading on for a moment when the client is still sending."""
        self.error_code = error.code
        length = (b"content-length", b"%d" % len(error.body))
        await self.start(error.status, [JSON_TYPE, length, *error.headers])
        if error.close:
            await self.write(error.body)
            await self._drop_input()
            await self.end()
        else:
            await self.end(error.body)

    async def _drop_input(self, most_bytes: int = 8 * 1024 * 1024, most_s: float = 1.0) -> None:
        # Closing with unread input resets the connection, which can destroy the answer
        # before the client has read it.
        try:
            async with asyncio.timeout(most_s):
                while most_bytes > 0:
                    message = await self.receive()
                    if message["type"] == "http.disconnect" or not message.get("more_body"):
                        return
                    most_bytes -= len(message.get("body", b""))
        except TimeoutError:
            return

    async def forward(self, message: ASGIMessage) -> None:
        """A ``send`` for ASGI applications behind this exchange; adds the own headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), *self.own_headers()]
        elif not message.get("more_body", False):
            self.complete = True
        await self.send(message)


def read_request_id(given: bytes | None) -> str:
    """The client's id when it is harmless to log and to send back; else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode()
    return f"req_{os.urandom(16).hex()}"
