"""Cuts a stream of server-sent events into whole events, keeping every byte.

The format is that of the HTML standard, section "Server-sent events": lines end with LF, CR or
CRLF, an empty line ends an event.
"""

from __future__ import annotations

import re

_FIELDS = (b"data:", b"event:", b":", b"id:", b"retry:", b"data", b"event", b"\n", b"\r")
# Two line ends in a row; a CRLF is one.
_BLANK = re.compile(rb"\n\r\n?|\n\n|\r\n\r\n?|\r\n\n|\r\r\n?")


class EventTooLong(Exception):
    """An event is longer than the bound."""


class EventSplitter:
    """Fed with any pieces of a stream; gives whole events.

    Args:
        most_bytes: of one event.
    """

    __slots__ = ("_most", "_rest")

    def __init__(self, most_bytes: int = 16 * 1024 * 1024) -> None:
        self._most = most_bytes
        self._rest = b""

    @property
    def rest(self) -> bytes:
        """The beginning of an event whose end has not come."""
        return self._rest

    def feed(self, data: bytes) -> list[bytes]:
        """The events that ``data`` completes, each with its empty line. Joined with ``rest``
        they are what was fed. Raises EventTooLong."""
        # An event's end may lie across the seam; nothing before it needs a second look.
        seen = max(0, len(self._rest) - 3)
        buffer = self._rest + data if self._rest else data
        events: list[bytes] = []
        begin = 0
        if b"\r" not in buffer:
            position = seen
            while (end := buffer.find(b"\n\n", position)) >= 0:
                position = end + 2
                events.append(buffer[begin:position])
                begin = position
        else:
            for blank in _BLANK.finditer(buffer, seen):
                events.append(buffer[begin : blank.end()])
                begin = blank.end()
        self._rest = buffer[begin:]
        if len(self._rest) > self._most:
            raise EventTooLong(f"an event has more than {self._most} bytes")
        return events


def payload_of(event: bytes) -> bytes | None:
    """The data of an event, b"" for one without; None for what is no event at all."""
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2:
        return event[6:-2]
    if not event.startswith(_FIELDS) and event.lstrip(b"\r\n"):
        return None
    lines = event.splitlines()
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
