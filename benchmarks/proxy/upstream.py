"""A fake OpenAI-compatible server: ``python -m benchmarks.proxy.upstream PORT CHUNKS GAP_MS``.

Cheap enough not to be measured itself: a protocol on uvloop, and answers that are made once. An
answer in one piece is there at once. A stream's first piece is there at once and each further one
after ``GAP_MS``; every piece holds the time at which it was written, by the clock that all
processes of a machine share, so that whoever gets it knows how long it was on its way.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import uvloop

PIECES_MOST = 1024
# Of the length of the stamp that takes its place.
TEXT = "a piece of text, "


def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    """A ``chat.completion.chunk``."""
    return {
        "id": "chatcmpl-bench",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "bench",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


def event(document: dict[str, Any]) -> bytes:
    """One event, without the chunk framing."""
    return b"data: " + json.dumps(document, separators=(",", ":")).encode() + b"\n\n"


def framed(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class Answers:
    """Every byte that does not depend on the moment.

    Args:
        pieces: events with text per stream, which are its tokens.
    """

    def __init__(self, pieces: int) -> None:
        usage = {"prompt_tokens": 40, "completion_tokens": pieces, "total_tokens": 40 + pieces}
        whole = {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1700000000,
            "model": "bench",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": TEXT * pieces},
                    "finish_reason": "stop",
                }
            ],
            "usage": usage,
        }
        body = json.dumps(whole, separators=(",", ":")).encode()
        self.whole = (
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        ) + body
        self.stream_head = (
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
        ) + framed(event(chunk({"role": "assistant", "content": ""})))
        before, _, after = event(chunk({"content": "STAMP"})).partition(b"STAMP")
        # 18 digits of nanoseconds hold 31 years since the machine started.
        self.piece = (
            b"%x\r\n" % (len(before) + 19 + len(after)) + before + b"%018d " + after + b"\r\n"
        )
        last = event(chunk({}, "stop"))
        counted = event({**chunk({}), "choices": [], "usage": usage})
        done = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        self.end = framed(last) + done
        self.end_with_usage = framed(last) + framed(counted) + done


class Protocol(asyncio.Protocol):
    """One connection; one request at a time, as HTTP clients without pipelining send them."""

    def __init__(self, answers: Answers, pieces: int, gap_s: float) -> None:
        self._answers = answers
        self._pieces = pieces
        self._gap_s = gap_s
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Opened."""
        self._transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Closed, maybe in the middle of a stream."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answer once the request is whole."""
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found or self._transport is None:
            return
        if head.startswith(b"GET "):
            self._received = b""
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            return
        _, _, rest = head.lower().partition(b"content-length:")
        if len(body) < int(rest.partition(b"\r\n")[0]):
            return
        self._received = b""
        if b'"stream":true' not in body and b'"stream": true' not in body:
            self._transport.write(self._answers.whole)
            return
        wants_usage = b'"include_usage":true' in body or b'"include_usage": true' in body
        end = self._answers.end_with_usage if wants_usage else self._answers.end
        self._write(self._answers.stream_head, self._pieces, end)

    def _write(self, before: bytes, left: int, end: bytes) -> None:
        if self._transport is None:
            return
        data = before + self._answers.piece % time.monotonic_ns()
        if left == 1:
            self._transport.write(data + end)
            return
        self._transport.write(data)
        asyncio.get_running_loop().call_later(self._gap_s, self._write, b"", left - 1, end)


async def serve(port: int, pieces: int, gap_s: float) -> None:
    """Until the process is ended."""
    answers = Answers(pieces)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Protocol(answers, pieces, gap_s), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


def main() -> None:
    """The three arguments are positional."""
    port, pieces, gap_ms = sys.argv[1:]
    if not 1 <= int(pieces) <= PIECES_MOST:
        raise SystemExit(f"pieces: from 1 to {PIECES_MOST}")
    uvloop.run(serve(int(port), int(pieces), float(gap_ms) / 1000))


if __name__ == "__main__":
    main()
