"""Sends one request and reads its stream to the end, whatever end that is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Any

import orjson

from gateway.bench.outcome import Arrival, Outcome
from gateway.relay.connection import Connection
from gateway.relay.errors import Broken, Silent, Unreachable, UpstreamFault
from gateway.relay.events import EventSplitter, EventTooLong, payload_of
from gateway.relay.pool import ConnectionPool

REFUSED = "connection refused"
NO_CONNECTION = "no connection"
LOST = "connection lost"
CUT_OFF = "stream cut off"
TIMEOUT = "timeout"
STREAM_ERROR = "error in the stream"
NO_STREAM = "not a stream"
INTERRUPTED = "interrupted"

MOST_ERROR_BYTES = 64 * 1024
MOST_MESSAGE = 500
END_PATIENCE_S = 2.0


class Fault(Exception):
    """A request went wrong. ``kind`` groups, the text explains."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


async def ask(pool: ConnectionPool, data: bytes, due: float, timeout_s: float) -> Outcome:
    """Send ``data``, a whole HTTP request, and return what became of it. Raises nothing: a
    cancelled request is an outcome too."""
    outcome = Outcome(due=due, start=time.perf_counter())
    try:
        async with asyncio.timeout(timeout_s):
            await _exchange(pool, data, outcome, timeout_s)
    except TimeoutError:
        outcome.kind = TIMEOUT
        outcome.message = f"the answer was not complete after {timeout_s:g} s"
    except asyncio.CancelledError:
        outcome.kind, outcome.message = INTERRUPTED, "the run was ended"
    except Fault as fault:
        outcome.kind, outcome.message = fault.kind, str(fault)[:MOST_MESSAGE]
    except UpstreamFault as fault:
        outcome.kind, outcome.message = _kind_of(fault, outcome), str(fault)[:MOST_MESSAGE]
    outcome.end = time.perf_counter()
    if not outcome.counted:
        outcome.output_tokens = sum(not arrival.ends for arrival in outcome.arrivals)
    return outcome


async def _exchange(pool: ConnectionPool, data: bytes, outcome: Outcome, idle_s: float) -> None:
    fresh = False
    while True:
        connection = await pool.take(fresh=fresh)
        try:
            await connection.request(data, idle_s)
            if connection.status != 200:
                raise await _refusal(connection, idle_s)
            await _read_stream(connection, outcome, idle_s)
            return
        except UpstreamFault as fault:
            # A kept connection that the server had closed: no fault of the request.
            if not fault.stale or fresh:
                raise
            fresh = True
        finally:
            pool.give_back(connection)


async def _read_stream(connection: Connection, outcome: Outcome, idle_s: float) -> None:
    kind = connection.headers.get(b"content-type", b"")
    if not kind.startswith(b"text/event-stream"):
        body = await _body(connection, idle_s)
        raise Fault(NO_STREAM, f"the answer is {kind.decode('latin-1')!r}: {_shown(body)}")
    splitter = EventSplitter()
    done = finished = False
    while not done and (data := await connection.read(idle_s)):
        now = time.perf_counter()
        try:
            events = splitter.feed(data)
        except EventTooLong as error:
            raise Fault(NO_STREAM, str(error)) from None
        for event in events:
            payload = payload_of(event)
            if payload == b"[DONE]":
                done = True
            elif payload:
                finished = _take(outcome, payload, now) or finished
    if not done and not finished:
        raise Fault(CUT_OFF, f"the stream ended after {len(outcome.arrivals)} events, unfinished")
    with contextlib.suppress(UpstreamFault, TimeoutError):
        async with asyncio.timeout(END_PATIENCE_S):
            while done and await connection.read(END_PATIENCE_S):
                pass


def _take(outcome: Outcome, payload: bytes, now: float) -> bool:
    """Note an event; whether a choice says that it has ended."""
    try:
        chunk = orjson.loads(payload)
    except orjson.JSONDecodeError:
        raise Fault(NO_STREAM, f"an event is not JSON: {_shown(payload)}") from None
    if not isinstance(chunk, dict):
        raise Fault(NO_STREAM, f"an event is no JSON object: {_shown(payload)}")
    if chunk.get("error"):
        raise Fault(STREAM_ERROR, message_of(chunk, payload))
    so_far = _take_usage(outcome, chunk.get("usage"))
    choices = chunk.get("choices")
    if not isinstance(choices, list) or not choices:
        return False
    weight = sum(_weight(choice) for choice in choices if isinstance(choice, dict))
    finished = any(isinstance(c, dict) and c.get("finish_reason") for c in choices)
    if weight or finished:
        outcome.arrivals.append(Arrival(now, weight, so_far, ends=not weight))
    return finished


def _take_usage(outcome: Outcome, usage: Any) -> int | None:
    if not isinstance(usage, dict):
        return None
    tokens = usage.get("completion_tokens")
    if not isinstance(tokens, int):
        return None
    outcome.counted = True
    outcome.output_tokens = tokens
    prompt = usage.get("prompt_tokens")
    outcome.input_tokens = prompt if isinstance(prompt, int) else outcome.input_tokens
    return tokens


def _weight(choice: dict[str, Any]) -> int:
    """Characters that the model made: text, reasoning, calls of tools. A role is none."""
    text = choice.get("text")
    if isinstance(text, str):
        return len(text)
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return 0
    fields = ("content", "reasoning_content", "reasoning", "refusal")
    weight = sum(len(value) for name in fields if isinstance(value := delta.get(name), str))
    if delta.get("tool_calls"):
        weight += len(orjson.dumps(delta["tool_calls"]))
    return weight


async def _refusal(connection: Connection, idle_s: float) -> Fault:
    body = await _body(connection, idle_s)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    return Fault(f"HTTP {connection.status}", message_of(document, body))


async def _body(connection: Connection, idle_s: float) -> bytes:
    """The body, or its beginning."""
    parts = []
    size = 0
    while size < MOST_ERROR_BYTES and (part := await connection.read(idle_s)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)[:MOST_ERROR_BYTES]


def message_of(document: Any, body: bytes) -> str:
    """What a server says is wrong: OpenAI's error object, FastAPI's detail, or the text."""
    if isinstance(document, dict):
        error = document.get("error", document)
        if isinstance(error, str):
            return error
        if isinstance(error, dict):
            for name in ("message", "detail"):
                if error.get(name):
                    return str(error[name])
    return _shown(body)


def _shown(body: bytes) -> str:
    return body.decode("utf-8", "replace").strip()[:MOST_MESSAGE] or "no text"


def _kind_of(fault: UpstreamFault, outcome: Outcome) -> str:
    if isinstance(fault, Unreachable):
        refused = isinstance(fault.__context__, ConnectionRefusedError) or "refused" in str(fault)
        return REFUSED if refused or "Errno 111" in str(fault) else NO_CONNECTION
    if isinstance(fault, Silent):
        return TIMEOUT
    if isinstance(fault, Broken):
        return CUT_OFF if outcome.arrivals else LOST
    return NO_STREAM
