"""Reads multipart/form-data as it arrives: one file into a sink, small fields into memory.

The parser is python-multipart's; the bounds on names, fields and their number are here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from gateway.errors import (
    BodyTimeout,
    BodyTooLarge,
    ClientGone,
    InvalidRequest,
    UnsupportedMediaType,
)
from gateway.http.exchange import Exchange

MOST_FIELDS = 16
LONGEST_FIELD = 1024
LONGEST_FILENAME = 512
# Small parts are gathered before a thread is asked to write them.
GATHER_BYTES = 256 * 1024
# Beyond BODY_TIMEOUT_S an upload may go on only this fast, which bounds a dripping client.
SLOWEST_BYTES_PER_S = 16 * 1024

Sink = Callable[[bytes], object]


class FormReader:
    """Fed with the body's bytes. Not for several threads at once.

    Args:
        boundary: from the Content-Type.
        file_field: name of the one field that may hold a file.
        sink: takes the file's content, piece by piece.

    Attributes:
        fields: the other fields' values.
        filename: of the file, without folders; None while none has begun.
        complete: whether the closing boundary has been seen.
    """

    def __init__(self, boundary: bytes, file_field: str, sink: Sink) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.complete = False
        self._file_field = file_field
        self._sink = sink
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._name = ""
        self._value: bytearray | None = None
        self._parts = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": lambda data, i, j: self._header[0].extend(data[i:j]),
                "on_header_value": lambda data, i, j: self._header[1].extend(data[i:j]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._end_headers,
                "on_part_data": self._take,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Parse more of the body. Raises InvalidRequest and whatever the sink raises."""
        try:
            self._parser.write(data)
        except FormParserError:
            raise malformed() from None

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > MOST_FIELDS:
            raise InvalidRequest(f"The form has more than {MOST_FIELDS} fields.")
        self._headers = {}

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()

    def _end_headers(self) -> None:
        kind, options = parse_options_header(self._headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise malformed()
        self._name = text_of(options[b"name"])[:LONGEST_FIELD]
        if self._name == self._file_field:
            if self.filename is not None:
                raise InvalidRequest(f"'{self._file_field}' is given twice.", param=self._name)
            given = text_of(options.get(b"filename", b"")).replace("\\", "/")
            printable = "".join(c for c in given.rpartition("/")[2] if c.isprintable())
            self.filename = printable[:LONGEST_FILENAME] or "upload"
            self._value = None
        else:
            self._value = bytearray()

    def _take(self, data: bytes, begin: int, end: int) -> None:
        if self._value is None:
            self._sink(data[begin:end])
        elif len(self._value) + end - begin > LONGEST_FIELD:
            raise InvalidRequest(
                f"Invalid '{self._name}': expected at most {LONGEST_FIELD} bytes.",
                param=self._name,
            )
        else:
            self._value += data[begin:end]

    def _end_part(self) -> None:
        if self._value is None:
            return
        if self._name in self.fields:
            raise InvalidRequest(f"'{self._name}' is given twice.", param=self._name)
        self.fields[self._name] = text_of(self._value)

    def _end(self) -> None:
        self.complete = True


async def read_form(
    exchange: Exchange, file_field: str, sink: Sink, *, most_bytes: int, timeout_s: float
) -> FormReader:
    """The form of a request, its file handed to ``sink`` in a thread.

    ``most_bytes`` bounds the whole body. ``timeout_s`` bounds each silence, and with it the
    time in all at SLOWEST_BYTES_PER_S. Raises UnsupportedMediaType, InvalidRequest,
    BodyTooLarge, BodyTimeout, ClientGone, and what the sink raises.
    """
    form = FormReader(boundary_of(exchange), file_field, sink)
    declared = exchange.headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > most_bytes:
        raise BodyTooLarge(f"The request body is larger than {most_bytes} bytes.")
    began = time.monotonic()
    size = 0
    more = True
    while more:
        gathered = bytearray()
        while more and len(gathered) < GATHER_BYTES:
            allowed_s = began + timeout_s + size / SLOWEST_BYTES_PER_S - time.monotonic()
            part, more = await _next_part(exchange, min(timeout_s, allowed_s))
            gathered += part
            size += len(part)
        if size > most_bytes:
            raise BodyTooLarge(f"The request body is larger than {most_bytes} bytes.")
        await asyncio.to_thread(form.feed, bytes(gathered))
    if not form.complete:
        raise malformed()
    return form


async def _next_part(exchange: Exchange, within_s: float) -> tuple[bytes, bool]:
    try:
        async with asyncio.timeout(within_s):
            message = await exchange.receive()
    except TimeoutError:
        raise BodyTimeout("The request body did not arrive in time.") from None
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


def boundary_of(exchange: Exchange) -> bytes:
    """The boundary of a multipart request. Raises UnsupportedMediaType."""
    given = exchange.headers.get(b"content-type", b"").decode("latin-1")
    kind, options = parse_options_header(given)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 200:
        raise UnsupportedMediaType("Send the file as multipart/form-data with a boundary.")
    coding = exchange.headers.get(b"content-encoding", b"identity").strip().lower()
    if coding != b"identity":
        raise UnsupportedMediaType("Compressed request bodies are not supported.")
    return boundary


def text_of(value: bytes | bytearray) -> str:
    """A field as text. Raises InvalidRequest."""
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise malformed() from None


def malformed() -> InvalidRequest:
    """The error for a body that is not the form it claims to be."""
    return InvalidRequest("The request body is not valid multipart/form-data.", code="invalid_form")
