"""One line of a batch, answered in process by the handler that serves the same path over HTTP.

So a line gets what a request would get: the same checks, limits, answers and errors.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from engine.base import EngineDead, EngineError, EngineOverloaded, RequestRejected
from gateway.batch.batch_rows import Batch, Result
from gateway.control.ledger.ledger import Ended, Ledger
from gateway.control.rights import Principal
from gateway.errors import (
    GenerationAborted,
    ModelLoading,
    PromptTimeout,
    RateLimited,
    ServerDraining,
    StorageUnavailable,
    UpstreamError,
    answer,
    is_expected,
)
from gateway.http.exchange import ASGIMessage, Exchange, read_request_id

log = logging.getLogger("gateway.batch")

Handler = Callable[[Exchange], Awaitable[None]]

# Behind everything that anybody waits for.
PRIORITY = 100
DEGRADED_MARK = b"x-gateway-degraded"
# Nothing is wrong with the line or the engine: it is tried again, however often.
LATER = (EngineOverloaded, ModelLoading, ServerDraining, GenerationAborted)
# The line itself may be the cause, so the number of attempts is bounded.
FAULTS = (EngineError, PromptTimeout, StorageUnavailable, UpstreamError)


class TryLater(Exception):
    """The line could not run now.

    Attributes:
        after_s: when it can at the earliest.
    """

    def __init__(self, after_s: float = 0.0) -> None:
        super().__init__()
        self.after_s = after_s


class TryAgain(Exception):
    """The line failed for what may pass; ``reply`` is what it gets when it does not.

    Attributes:
        details: what the attempt came to, as fields of an access log.
    """

    def __init__(self, reply: Reply, details: Mapping[str, Any]) -> None:
        super().__init__()
        self.reply = reply
        self.details = details


@dataclass(frozen=True, slots=True)
class Reply:
    """What the handler answered.

    Attributes:
        seconds: it took. code: of the error, if it is one.
    """

    status: int
    request_id: str
    body: bytes
    seconds: float = 0.0
    code: str | None = None


class InProcess:
    """``receive`` and ``send`` of a request that came over no connection."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.status = 0
        self.parts: list[bytes] = []

    async def receive(self) -> ASGIMessage:
        """The body, and then silence: this client never leaves."""
        body, self._body = self._body, None
        if body is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: ASGIMessage) -> None:
        """Gather the response."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            self.parts.append(message.get("body", b""))


@dataclass(frozen=True, slots=True)
class Account:
    """Counts a line of a batch, once, whichever attempt is the last one and however often it
    runs: ``principal`` is whose it is."""

    ledger: Ledger
    principal: Principal
    batch: Batch
    number: int

    def close(self, reply: Reply, details: Mapping[str, Any]) -> Reply:
        """The line has its answer; returns it."""
        if details.get("background"):
            return reply  # counted when that has ended
        outcome = "completed" if reply.status < 400 else "failed"
        if outcome == "failed" and reply.status < 500:
            outcome = "shed" if reply.status == 429 else "rejected"
        self.ledger.record(
            Ended(
                source="batch",
                principal=self.principal,
                route=self.batch.endpoint,
                request_id=reply.request_id,
                outcome=outcome,
                status=reply.status,
                error_code=reply.code,
                total_s=reply.seconds,
                details=details,
                id=f"{self.batch.id}-{self.number}",
            )
        )
        return reply


async def execute(handler: Handler, body: Mapping[str, Any], account: Account) -> Reply:
    """The handler's answer to a body, counted. Raises TryLater and TryAgain, uncounted."""
    content = await asyncio.to_thread(orjson.dumps, body)
    channel = InProcess(content)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(content)),
    ]
    endpoint = account.batch.endpoint
    scope = {"type": "http", "method": "POST", "path": endpoint, "headers": headers}
    exchange = Exchange(scope, channel.receive, channel.send)
    exchange.principal = account.principal
    exchange.priority = PRIORITY
    exchange.route = endpoint
    try:
        await handler(exchange)
    except LATER as error:
        raise TryLater from error
    except Exception as error:
        if isinstance(error, RateLimited) and error.retry_after_ms is not None:
            # A batch has time; what is larger than the whole limit will never fit.
            raise TryLater(error.retry_after_ms / 1000) from error
        if not is_expected(error):
            log.error("unexpected exception", exc_info=error)
        refusal = answer(error, exchange.request_id)
        seconds = time.perf_counter() - exchange.started
        reply = Reply(refusal.status, exchange.request_id, refusal.body, seconds, refusal.code)
        if isinstance(error, FAULTS) and not isinstance(error, RequestRejected):
            raise TryAgain(reply, exchange.details) from error
        return account.close(reply, exchange.details)
    if any(name == DEGRADED_MARK for name, _ in exchange.marks):
        # The model went away as the line was sent; a batch can wait for it to come back.
        raise TryLater
    seconds = time.perf_counter() - exchange.started
    reply = Reply(channel.status, exchange.request_id, b"".join(channel.parts), seconds)
    return account.close(reply, exchange.details)


def given_up() -> Reply:
    """For a line during which the server ended again and again."""
    request_id = read_request_id(None)
    refusal = answer(EngineDead("the server ended while the line ran"), request_id)
    return Reply(refusal.status, request_id, refusal.body, code=refusal.code)


def result_of(line: int, custom_id: str, reply: Reply) -> Result:
    """A reply as a line of the output or the error file."""
    response = {
        "status_code": reply.status,
        "request_id": reply.request_id,
        "body": orjson.Fragment(reply.body),
    }
    body = envelope(custom_id, response, None)
    ok = reply.status == 200
    return Result(line, ok, body, usage_of(reply.body) if ok else (0, 0, 0, 0))


def unrun(line: int, custom_id: str, code: str, message: str) -> Result:
    """A line that never ran, for the error file."""
    return Result(line, False, envelope(custom_id, None, {"code": code, "message": message}))


def envelope(custom_id: str, response: Any, error: Any) -> bytes:
    """A line of an output file."""
    return orjson.dumps(
        {
            "id": f"batch_req_{os.urandom(12).hex()}",
            "custom_id": custom_id,
            "response": response,
            "error": error,
        }
    )


def usage_of(body: bytes) -> tuple[int, int, int, int]:
    """Tokens of an answer: input, of these cached, output, of these reasoning."""
    usage = orjson.loads(body).get("usage") or {}
    read = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    made = usage.get("completion_tokens_details") or usage.get("output_tokens_details") or {}
    return (
        usage.get("prompt_tokens") or usage.get("input_tokens") or 0,
        read.get("cached_tokens") or 0,
        usage.get("completion_tokens") or usage.get("output_tokens") or 0,
        made.get("reasoning_tokens") or 0,
    )
