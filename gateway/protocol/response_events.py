"""Server-sent events of the Responses API: numbered, each named by its type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

Json = dict[str, Any]


class EventWriter:
    """Numbers events and writes them; keeps nothing.

    With ``wanted`` False nothing is written: the answer goes out in one piece.
    """

    __slots__ = ("_number", "wanted")

    def __init__(self, *, wanted: bool) -> None:
        self.wanted = wanted
        self._number = 0

    def write(self, kind: str, fields: Json) -> bytes:
        """One event of type ``response.`` + kind."""
        if not self.wanted:
            return b""
        number = self._number
        self._number += 1
        return framed(f"response.{kind}", {**fields, "sequence_number": number})

    def delta_writer(self, kind: str, place: Json) -> Callable[[str], bytes]:
        """A quick writer for many events that differ in ``delta`` only."""
        name = f"response.{kind}"
        body = orjson.dumps({"type": name, **place})[:-1]
        head = b"event: " + name.encode() + b"\ndata: " + body + b',"delta":'

        def write(text: str) -> bytes:
            if not self.wanted:
                return b""
            number = self._number
            self._number += 1
            return head + orjson.dumps(text) + b',"sequence_number":%d}\n\n' % number

        return write


def framed(kind: str, fields: Json) -> bytes:
    """An event of this type."""
    return (
        b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **fields}) + b"\n\n"
    )


def error_event(message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """The event of a stream that breaks before there is a response to speak of.

    Flat as the SDKs' types have it, and with the object that OpenAI sends as well.
    """
    error = {"type": kind, "code": code, "message": message, "param": param}
    fields = {"code": code, "message": message, "param": param, "sequence_number": 0}
    return framed("error", {**fields, "error": error})
