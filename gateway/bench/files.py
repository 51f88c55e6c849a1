"""Reads prompts and traces, one JSON object per line, and says which line is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from gateway.bench.errors import BenchError

PROMPT_FIELDS = "an object with 'prompt' (a text) or 'messages' (a list)"
TRACE_FIELDS = "an object with 'timestamp' (a number) and 'input_length' or 'prompt' or 'messages'"


@dataclass(frozen=True, slots=True)
class Line:
    """A request as a file describes it; None where the file says nothing.

    Attributes:
        content: a text, or the messages of a chat.
        at_s: seconds since the first request of the file.
    """

    content: str | list[dict[str, Any]] | None
    input_len: int | None
    output_len: int | None
    at_s: float = 0.0


def read_prompts(path: Path) -> list[Line]:
    """``{"prompt": "…" | "messages": […], "output_tokens": N}`` per line. Raises BenchError."""
    lines = [_line(row, where, PROMPT_FIELDS) for where, row in _rows(path, PROMPT_FIELDS)]
    if not lines:
        raise BenchError(f"{path} is empty; write one line per prompt: {PROMPT_FIELDS}")
    return lines


def read_trace(path: Path, unit_s: float) -> list[Line]:
    """``{"timestamp": T, "input_length": N, "output_length": N}`` per line, or with a prompt.

    Args:
        unit_s: seconds that a timestamp of 1 stands for; 0.001 for milliseconds.

    Raises BenchError, also when time runs backwards.
    """
    lines: list[Line] = []
    first = last = 0.0
    for where, row in _rows(path, TRACE_FIELDS):
        stamp = row.get("timestamp")
        if isinstance(stamp, bool) or not isinstance(stamp, int | float):
            raise BenchError(f"{where}: 'timestamp' is {stamp!r}; write {TRACE_FIELDS}")
        at = float(stamp) * unit_s
        if not lines:
            first = last = at
        if at < last:
            raise BenchError(f"{where}: 'timestamp' is earlier than the line before; sort the file")
        last = at
        line = _line(row, where, TRACE_FIELDS)
        lines.append(Line(line.content, line.input_len, line.output_len, at - first))
    if not lines:
        raise BenchError(f"{path} is empty; write one line per request: {TRACE_FIELDS}")
    return lines


def _rows(path: Path, fields: str) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.strip():
                    continue
                where = f"{path} line {number}"
                try:
                    row = orjson.loads(text)
                except orjson.JSONDecodeError as error:
                    raise BenchError(f"{where} is not JSON ({error}); write {fields}") from None
                if not isinstance(row, dict):
                    raise BenchError(f"{where} is no object; write {fields}")
                yield where, row
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror}") from None


def _line(row: dict[str, Any], where: str, fields: str) -> Line:
    content = row.get("messages", row.get("prompt"))
    input_len = _count(row, ("input_length", "input_len", "input_tokens"), where)
    if "messages" in row:
        if not (
            isinstance(content, list)
            and content
            and all(isinstance(message, dict) and "role" in message for message in content)
        ):
            raise BenchError(f"{where}: 'messages' must be a list of objects with a 'role'")
    elif content is not None and not (isinstance(content, str) and content):
        raise BenchError(f"{where}: 'prompt' must be a text that is not empty")
    if content is None and (input_len is None or fields is PROMPT_FIELDS):
        raise BenchError(f"{where} has no prompt; write {fields}")
    names = ("output_tokens", "output_length", "output_len", "max_tokens")
    return Line(content, input_len, _count(row, names, where))


def _count(row: dict[str, Any], names: tuple[str, ...], where: str) -> int | None:
    for name in names:
        if (value := row.get(name)) is not None:
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise BenchError(f"{where}: {name!r} is {value!r} and must be a number above 0")
            return value
    return None
