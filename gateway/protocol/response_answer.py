"""One response from its first event to its last, whole or as a stream."""

from __future__ import annotations

import time
from typing import Any

import orjson

from gateway.chat.turn import ChatTurn, TurnDelta
from gateway.errors import answer as error_answer
from gateway.errors import find_row
from gateway.protocol.response_events import EventWriter
from gateway.protocol.response_output import OutputBuilder

Json = dict[str, Any]


class ResponseAnswer:
    """Turns a turn into a response.

    Args:
        head: the response object before the answer; becomes the whole one.
        stream: whether events are wanted.
    """

    def __init__(self, head: Json, *, stream: bool) -> None:
        self.body = head
        self._events = EventWriter(wanted=stream)
        self._output = OutputBuilder(self._events)
        self._turn: ChatTurn | None = None
        self._logprobs = False
        self._reason: str | None = None

    def queued(self) -> bytes:
        """The events of a background response that waits for its turn."""
        return self._about("created") + self._about("queued")

    def begin(self, turn: ChatTurn, *, logprobs: bool) -> bytes:
        """The events once a model works on it."""
        self._turn = turn
        self._logprobs = logprobs
        body = self.body
        sampling = turn.prompt.sampling
        body["model"] = turn.model
        body["temperature"] = sampling.temperature
        # Engines ask for more than 0; the caller's own 0 is shown.
        body["top_p"] = sampling.top_p if body["top_p"] is None else body["top_p"]
        was_queued = body["status"] == "queued"
        body["status"] = "in_progress"
        return (b"" if was_queued else self._about("created")) + self._about("in_progress")

    def take(self, part: TurnDelta) -> bytes:
        """The events for more of the answer."""
        assert self._turn is not None
        logprobs: list[Json] = []
        if self._logprobs and part.delta.logprobs:
            logprobs = self._turn.texts.openai(part.delta.logprobs)
        if part.finish_reason is not None:
            self._reason = part.finish_reason
        if not part.events:
            self._output.keep(logprobs)
            return b""
        written = []
        for event in part.events:
            written.append(self._output.take(event, logprobs))
            logprobs = []
        return b"".join(written)

    def complete(self) -> bytes:
        """Make the body final; the events before the last one."""
        cut = self._reason == "length"
        ending = self._settle("incomplete" if cut else "completed")
        if cut:
            self.body["incomplete_details"] = {"reason": "max_output_tokens"}
        else:
            self.body["completed_at"] = int(time.time())
        return ending

    def cancel(self) -> bytes:
        """Make the body that of a response which its caller ended; as ``complete``."""
        return self._settle("cancelled")

    def fail(self, error: BaseException, request_id: str) -> bytes:
        """Make the body that of a failure, saying no more than an error answer would."""
        self.body["error"] = {
            "code": response_error_code(error),
            "message": shown_message(error, request_id),
        }
        return self._settle("failed")

    def last(self) -> bytes:
        """The last event, named by the final status."""
        return self._about(self.body["status"])

    def _settle(self, status: str) -> bytes:
        body = self.body
        ending = b""
        if status == "completed":
            ending = self._output.finish("completed")
        elif status == "incomplete" or self._output.items:
            ending = self._output.finish("incomplete")
        body["status"] = status
        body["output"] = self._output.items
        if self._turn is not None:
            body["usage"] = usage_of(self._turn)
        return ending

    def _about(self, kind: str) -> bytes:
        return self._events.write(kind, {"response": self.body})


def usage_of(turn: ChatTurn) -> Json:
    """Tokens of a turn in this API's names."""
    meter = turn.meter
    usage: Json = {
        "input_tokens": meter.prompt_tokens,
        "input_tokens_details": {"cached_tokens": meter.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": meter.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": turn.reasoning_tokens},
        "total_tokens": meter.prompt_tokens + meter.completion_tokens,
    }
    if turn.degraded:
        usage["degraded"] = True
    return usage


def response_error_code(error: BaseException) -> str:
    """The code of a failed response; the API knows few."""
    status = find_row(error).status
    if status == 429:
        return "rate_limit_exceeded"
    return "invalid_prompt" if status < 500 else "server_error"


def shown_message(error: BaseException, request_id: str) -> str:
    """What the table of errors tells a caller of this exception."""
    return str(orjson.loads(error_answer(error, request_id).body)["error"]["message"])
