"""Reads a JSON request body within bounds of size and time."""

from __future__ import annotations

import asyncio

from gateway.errors import BodyTimeout, BodyTooLarge, ClientGone, UnsupportedMediaType
from gateway.http.connection import CLIENT_LINE, ClientLine
from gateway.http.exchange import Exchange


async def read_json_body(exchange: Exchange, most_bytes: int, timeout_s: float) -> bytes:
    """The whole body of a request that declares plain JSON.

    Raises UnsupportedMediaType, BodyTooLarge, BodyTimeout, or ClientGone when the client
    leaves before the end.
    """
    check_media_type(exchange)
    declared = exchange.headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > most_bytes:
        raise too_large(most_bytes)
    line: ClientLine | None = exchange.scope.get(CLIENT_LINE)
    if line is not None and (whole := line.whole_body()) is not None:
        if len(whole) > most_bytes:
            raise too_large(most_bytes)
        return whole
    parts: list[bytes] = []
    size = 0
    more = True
    try:
        async with asyncio.timeout(timeout_s):
            while more:
                part, more = await _next_part(exchange)
                size += len(part)
                if size > most_bytes:
                    raise too_large(most_bytes)
                parts.append(part)
    except TimeoutError:
        raise too_late(timeout_s) from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def _next_part(exchange: Exchange) -> tuple[bytes, bool]:
    message = await exchange.receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


def check_media_type(exchange: Exchange) -> None:
    """Raise UnsupportedMediaType unless the body is uncompressed JSON.

    A body of another declared type is refused even if it would parse: browsers send
    ``text/plain`` across origins without asking, JSON only with permission.
    """
    kind = exchange.headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        shown = f"'{kind.decode('latin-1')[:64]}'" if kind else "none"
        raise UnsupportedMediaType(
            f"Send the body as JSON with the header 'Content-Type: application/json'; got {shown}."
        )
    coding = exchange.headers.get(b"content-encoding", b"identity").strip().lower()
    if coding != b"identity":
        raise UnsupportedMediaType("Compressed request bodies are not supported.")


def too_large(most_bytes: int) -> BodyTooLarge:
    """The error for a body beyond the bound."""
    return BodyTooLarge(f"The request body is larger than {most_bytes} bytes.")


def too_late(timeout_s: float) -> BodyTimeout:
    """The error for a body that did not arrive in time."""
    return BodyTimeout(f"The request body did not arrive within {timeout_s:g} seconds.")
