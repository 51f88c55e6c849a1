"""Structured logs, written by a thread so that a slow terminal never stalls the event loop.

Nothing logs prompts, answers, keys or headers. Texts of unexpected exceptions may quote a
prompt, so only their type and stack are written, except at level debug.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import traceback
from contextvars import ContextVar
from logging.handlers import QueueHandler, QueueListener
from queue import Full, Queue
from typing import Any, TextIO

import orjson

MAX_PENDING = 10_000
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)


class LogQueue(QueueHandler):
    """Hands records to the writing thread; drops and counts them when it falls behind."""

    queue: Queue[logging.LogRecord]

    def __init__(self, pending: Queue[logging.LogRecord]) -> None:
        super().__init__(pending)
        self.dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Note the request id while its context is current; formatting is the thread's work."""
        record.request_id = REQUEST_ID.get()
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        """Never blocks."""
        try:
            self.queue.put_nowait(record)
        except Full:
            self.dropped += 1


class JsonFormatter(logging.Formatter):
    """One JSON object per line; ``extra={"fields": {...}}`` becomes top-level fields."""

    def __init__(self, *, show_exception_text: bool) -> None:
        super().__init__()
        self.show_exception_text = show_exception_text

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": getattr(record, "request_id", None),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = describe(record.exc_info[1], self.show_exception_text)
        return orjson.dumps(line, default=str).decode()


class TextFormatter(JsonFormatter):
    """The same record for people."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line, and a stack below it for defects."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields: dict[str, Any] = getattr(record, "fields", {})
        shown = " ".join(f"{key}={value}" for key, value in fields.items() if value is not None)
        line = f"{clock} {record.levelname.lower():7} {record.getMessage()} {shown}".rstrip()
        request_id = getattr(record, "request_id", None)
        if request_id:
            line += f" request_id={request_id}"
        if record.exc_info and record.exc_info[1] is not None:
            line += "\n" + describe(record.exc_info[1], self.show_exception_text)
        return line


def describe(error: BaseException, show_text: bool) -> str:
    """Type and stack of an exception and its causes, with texts only when allowed."""
    if show_text:
        return "".join(traceback.format_exception(error))
    parts = []
    current: BaseException | None = error
    while current is not None:
        frames = "".join(
            f"  {frame.filename}:{frame.lineno} in {frame.name}\n"
            for frame in traceback.extract_tb(current.__traceback__)
        )
        parts.append(f"{type(current).__name__}\n{frames}")
        hidden = current.__suppress_context__
        current = current.__cause__ or (None if hidden else current.__context__)
    return "caused by ".join(parts)


class Logs:
    """The running log set-up; ``stop`` writes what is pending."""

    def __init__(self, level: str, style: str, stream: TextIO | None = None) -> None:
        pending: Queue[logging.LogRecord] = Queue(MAX_PENDING)
        self._handler = LogQueue(pending)
        writer = logging.StreamHandler(stream or sys.stderr)
        formatter = JsonFormatter if style == "json" else TextFormatter
        self._formatter = formatter(show_exception_text=level == "debug")
        writer.setFormatter(self._formatter)
        self._listener = QueueListener(pending, writer)
        root = logging.getLogger()
        root.handlers[:] = [self._handler]
        root.setLevel(level.upper())
        # These log addresses, headers or every connection at levels below warning.
        for name in ("uvicorn", "uvicorn.error", "asyncio", "httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._listener.start()

    def set_level(self, level: str) -> None:
        """Write from this level on."""
        self._formatter.show_exception_text = level == "debug"
        logging.getLogger().setLevel(level.upper())

    def dropped(self) -> int:
        """Records lost because the writer fell behind."""
        return self._handler.dropped

    def stop(self) -> None:
        """Write what is pending and end the thread."""
        with contextlib.suppress(Full):
            self._listener.stop()
