"""Server-sent events: constants and framing."""

from __future__ import annotations

SSE_HEADERS: list[tuple[bytes, bytes]] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # nginx and its kin would otherwise gather the stream before passing it on.
    (b"x-accel-buffering", b"no"),
]
DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"


def event(data: bytes) -> bytes:
    """One event; ``data`` is JSON without line breaks."""
    return b"data: " + data + b"\n\n"


def named_event(name: bytes, data: bytes) -> bytes:
    """One event with a name, as Anthropic's protocol wants it."""
    return b"event: " + name + b"\ndata: " + data + b"\n\n"
