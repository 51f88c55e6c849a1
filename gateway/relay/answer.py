"""One attempt at one server, up to the point where its answer begins."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

import orjson

from gateway.relay.connection import Connection
from gateway.relay.errors import (
    Busy,
    Failed,
    NotUnderstood,
    Refused,
    Rejected,
    UpstreamFault,
)
from gateway.routing.upstream import Upstream

MOST_ERROR_BYTES = 256 * 1024
MOST_ANSWER_BYTES = 256 * 1024 * 1024
LONGEST_MESSAGE = 2000
# A JSON text beyond this size is checked in a thread.
INLINE_BYTES = 256 * 1024
# Of the caller's own making; every other 4xx is between the gateway and the server.
CALLERS = frozenset({400, 409, 413, 415, 422})
OVERLOADED = frozenset({408, 425, 429, 503, 529})


class Asking:
    """See ``ask``."""

    __slots__ = ("_connection", "_data", "_upstream")

    def __init__(self, upstream: Upstream, data: bytes) -> None:
        self._upstream = upstream
        self._data = data

    async def __aenter__(self) -> Connection:
        try:
            return await self._attempt(fresh=False)
        except UpstreamFault as fault:
            if not fault.stale:
                raise
        return await self._attempt(fresh=True)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._upstream.connections.give_back(self._connection)

    async def _attempt(self, *, fresh: bool) -> Connection:
        upstream = self._upstream
        bound = upstream.spec.timeouts.first_byte
        connection = self._connection = await upstream.connections.take(fresh=fresh)
        try:
            await connection.request(self._data, bound)
            if not 200 <= connection.status < 300:
                raise await refusal(connection, upstream)
        except BaseException:
            upstream.connections.give_back(connection)
            raise
        return connection


def ask(upstream: Upstream, data: bytes) -> Asking:
    """Enter it to send a request and wait for a 2xx; leaving early takes the request back.

    A kept connection that the server had closed meanwhile is replaced by a fresh one, once: no
    byte of an answer has come, so nothing has been generated. Raises UpstreamFault.
    """
    return Asking(upstream, data)


async def read_json(connection: Connection, upstream: Upstream) -> tuple[bytes, dict[str, Any]]:
    """A whole JSON object, as it came and what it means. Raises UpstreamFault."""
    check_type(connection, b"application/json")
    parts: list[bytes] = []
    size = 0
    while data := await connection.read(upstream.spec.timeouts.idle):
        size += len(data)
        if size > MOST_ANSWER_BYTES:
            raise NotUnderstood(f"an answer of more than {MOST_ANSWER_BYTES} bytes")
        parts.append(data)
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    try:
        inline = len(body) <= INLINE_BYTES
        document = orjson.loads(body) if inline else await asyncio.to_thread(orjson.loads, body)
    except orjson.JSONDecodeError:
        raise NotUnderstood("an answer that is not JSON") from None
    if not isinstance(document, dict):
        raise NotUnderstood("an answer that is not a JSON object")
    if document.get("error") is not None:
        raise Failed("an error with status 200")
    return body, document


def check_type(connection: Connection, wanted: bytes) -> None:
    """Raise NotUnderstood unless the body is of this type and not compressed."""
    headers = connection.headers
    given = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    coding = headers.get(b"content-encoding", b"identity").strip().lower()
    if given != wanted or coding != b"identity":
        shown = given.decode("latin-1")[:64] or "nothing"
        raise NotUnderstood(f"answered {shown} in place of {wanted.decode()}")


async def refusal(connection: Connection, upstream: Upstream) -> UpstreamFault:
    """What a status that is no success means."""
    status = connection.status
    if status in (401, 403, 404, 405, 407) or 300 <= status < 400:
        return Refused(f"answered {status}", status)
    if status in OVERLOADED:
        return Busy(status, retry_after(connection.headers))
    if status not in CALLERS:
        return Failed(f"answered {status}")
    body = b""
    idle_s = upstream.spec.timeouts.idle
    while len(body) < MOST_ERROR_BYTES and (data := await connection.read(idle_s)):
        body += data
    return rejection(status, body)


def rejection(status: int, body: bytes) -> Rejected:
    """The server's own words about the request, where they have the known shape."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    error = document.get("error") if isinstance(document, dict) else None
    if not isinstance(error, dict):
        error = document if isinstance(document, dict) else {}
    message, param, code = (error.get(name) for name in ("message", "param", "code"))
    return Rejected(
        status,
        text_of(message) or "The request was refused by the server that runs the model.",
        text_of(param),
        text_of(code),
    )


def text_of(value: Any) -> str | None:
    """A bounded, printable text, or None."""
    if not isinstance(value, str) or not value:
        return None
    return "".join(c for c in value[:LONGEST_MESSAGE] if c.isprintable() or c == "\n")


def retry_after(headers: dict[bytes, bytes]) -> float | None:
    """Seconds of a Retry-After; dates are not read."""
    value = headers.get(b"retry-after", b"").strip()
    return min(float(value), 86_400.0) if value.isdigit() and len(value) < 8 else None
