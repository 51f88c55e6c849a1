"""A server that streams by the clock and remembers when it sent what: a process of its own.

    python -m gateway.bench.timed_server TTFT_SECONDS ITL_SECONDS

It prints its port, answers POST with as many events as ``max_tokens`` asks for, and GET with all
moments by text of the prompt. It ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from typing import Any

import orjson

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"

Moments = dict[str, list[float]]


class TimedServer(asyncio.Protocol):
    """One connection.

    Args:
        moments: by prompt, seconds of ``time.perf_counter()``, which on Linux is one clock for
            all processes: when the request was read, then when each event was sent.
    """

    def __init__(self, ttft_s: float, itl_s: float, moments: Moments) -> None:
        self._ttft_s = ttft_s
        self._itl_s = itl_s
        self._moments = moments
        self._received = b""
        self._transport: Any = None
        self._answer: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """They have gone."""
        if self._answer is not None:
            self._answer.cancel()

    def data_received(self, data: bytes) -> None:
        """Part of a request, or a whole one."""
        now = time.perf_counter()
        self._received += data
        end = self._received.find(b"\r\n\r\n") + 4
        if end < 4:
            return
        found = _LENGTH.search(self._received, 0, end)
        length = int(found[1]) if found else 0
        if len(self._received) < end + length:
            return
        body, self._received = self._received[end : end + length], b""
        if not body:
            payload = orjson.dumps({"data": [{"id": "timed"}], "moments": self._moments})
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(payload) + payload
            )
            return
        self._answer = asyncio.create_task(self._stream(orjson.loads(body), now))

    async def _stream(self, request: dict[str, Any], now: float) -> None:
        moments = [now]
        self._moments[request["messages"][0]["content"]] = moments
        tokens = request["max_tokens"]
        self._transport.write(_HEAD)
        due = now + self._ttft_s
        for number in range(tokens):
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            due += self._itl_s
            last = number == tokens - 1
            choice = {"delta": {"content": "word "}, "finish_reason": "length" if last else None}
            moments.append(time.perf_counter())
            self._send({"choices": [choice]})
        usage = {"prompt_tokens": 1, "completion_tokens": tokens}
        self._send({"choices": [], "usage": usage}, b"data: [DONE]\n\n")
        self._transport.write(b"0\r\n\r\n")

    def _send(self, event: dict[str, Any], after: bytes = b"") -> None:
        data = b"data: " + orjson.dumps(event) + b"\n\n" + after
        self._transport.write(b"%x\r\n%s\r\n" % (len(data), data))


async def serve(ttft_s: float, itl_s: float) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    moments: Moments = {}
    server = await loop.create_server(
        lambda: TimedServer(ttft_s, itl_s, moments), "127.0.0.1", 0, backlog=4096
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    """Begin."""
    import uvloop

    with (
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(serve(float(sys.argv[1]), float(sys.argv[2])))


if __name__ == "__main__":
    main()
