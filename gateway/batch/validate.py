"""The lines of an input file: reading them, and whether they make a batch.

Codes of faults are OpenAI's where it has one. Line numbers count from 1, empty lines included.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from gateway.errors import InvalidRequest
from gateway.protocol.values import Text

MOST_LINES = 50_000
MOST_ERRORS = 50
CUSTOM_ID = Text(512, 1)
# Of lines read ahead; one line may be longer.
READ_AHEAD_BYTES = 1024 * 1024
READ_AHEAD_LINES = 256


@dataclass(frozen=True, slots=True)
class Line:
    """One request of an input file; ``text`` is the line as it stands there."""

    number: int
    text: bytes

    def parse(self) -> tuple[str, dict[str, Any]]:
        """``custom_id`` and ``body`` of a line that has been validated."""
        document = orjson.loads(self.text)
        return document["custom_id"], document["body"]


async def read_lines(path: Path, longest: int) -> AsyncIterator[list[Line]]:
    """The lines of a file that are not empty, some at a time, read in threads.

    A line longer than ``longest`` bytes comes cut off behind that length, which makes it
    longer than any allowed one still. Raises OSError.
    """
    stream = await asyncio.to_thread(open, path, "rb")
    number = 0
    try:
        while True:
            lines, number = await asyncio.to_thread(_read_some, stream, number, longest)
            if not lines:
                return
            yield lines
    finally:
        stream.close()


def _read_some(stream: BinaryIO, number: int, longest: int) -> tuple[list[Line], int]:
    lines: list[Line] = []
    size = 0
    while size < READ_AHEAD_BYTES and len(lines) < READ_AHEAD_LINES:
        text = stream.readline(longest + 1)
        if not text:
            break
        if len(text) > longest:
            rest = text
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(READ_AHEAD_BYTES)
        number += 1
        size += len(text)
        if text.strip():
            lines.append(Line(number, text))
    return lines, number


class Fault(Exception):
    """What is wrong with a line."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


@dataclass(slots=True)
class Verdict:
    """What validation found.

    Attributes:
        errors: as the batch shows them; at most MOST_ERRORS.
        model: asked for by every line; None where no line names one.
        model_line: number of the line that named it first.
    """

    lines: int = 0
    model: str | None = None
    model_line: int | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)

    def note(self, fault: Fault, line: int | None) -> None:
        """Add a fault, in the order of the lines."""
        self.errors.append(
            {"code": fault.code, "message": fault.message, "param": fault.param, "line": line}
        )
        self.errors.sort(key=lambda error: error["line"] or 0)


class Validator:
    """Checks the lines of one batch, in order.

    Args:
        endpoint: of the batch.
        longest: most bytes of a line.
    """

    def __init__(self, endpoint: str, longest: int) -> None:
        self.verdict = Verdict()
        self._endpoint = endpoint
        self._longest = longest
        self._seen: set[bytes] = set()

    def take(self, lines: list[Line]) -> None:
        """Check some more lines; runs in a thread."""
        for line in lines:
            if len(self.verdict.errors) >= MOST_ERRORS:
                return
            try:
                self._check(line)
            except Fault as fault:
                self.verdict.note(fault, line.number)

    def close(self) -> Verdict:
        """The verdict on the whole file."""
        if not self.verdict.lines and not self.verdict.errors:
            self.verdict.note(Fault("empty_file", "The input file has no requests."), None)
        return self.verdict

    def _check(self, line: Line) -> None:
        self.verdict.lines += 1
        if self.verdict.lines == MOST_LINES + 1:
            raise Fault("too_many_tasks", f"A batch may have at most {MOST_LINES} requests.")
        if len(line.text) > self._longest:
            raise Fault("line_too_long", f"The line is longer than {self._longest} bytes.")
        try:
            document = orjson.loads(line.text)
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise Fault("invalid_json_line", "This line is not parseable as valid JSON.")
        for name in ("custom_id", "method", "url", "body"):
            if document.get(name) is None:
                raise Fault(
                    "missing_required_parameter", f"Missing required parameter: '{name}'.", name
                )
        self._check_custom_id(document["custom_id"])
        if document["method"] != "POST":
            raise Fault("invalid_method", "The method of every request must be POST.", "method")
        if document["url"] != self._endpoint:
            raise Fault(
                "invalid_url",
                "The URL provided for this request does not match the batch endpoint.",
                "url",
            )
        self._check_body(document["body"], line.number)

    def _check_custom_id(self, custom_id: Any) -> None:
        try:
            CUSTOM_ID.read(custom_id, "custom_id")
        except InvalidRequest as error:
            raise Fault("invalid_value", error.message, "custom_id") from None
        digest = hashlib.blake2b(custom_id.encode(), digest_size=16).digest()
        if digest in self._seen:
            raise Fault(
                "duplicate_custom_id",
                "The custom_id for this request is a duplicate of another request. "
                "The custom_id parameter must be unique for each request in a batch.",
                "custom_id",
            )
        self._seen.add(digest)

    def _check_body(self, body: Any, number: int) -> None:
        if not isinstance(body, dict):
            raise Fault("invalid_type", "The body of a request must be an object.", "body")
        for name in ("stream", "background"):
            if body.get(name) not in (None, False):
                raise Fault(
                    "unsupported_parameter",
                    f"'{name}' is not possible in a batch.",
                    f"body.{name}",
                )
        model = body.get("model")
        if model is not None and not isinstance(model, str):
            raise Fault("invalid_type", "The model must be a string.", "body.model")
        if self.verdict.model_line is None:
            self.verdict.model = model
            self.verdict.model_line = number
        elif model != self.verdict.model:
            raise Fault(
                "mismatched_model",
                "The model of this request is not that of the first one. "
                "All requests of a batch must be for the same model.",
                "body.model",
            )
