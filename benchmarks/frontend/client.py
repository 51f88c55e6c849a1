"""The load: streamed chat completions over kept connections, each asking again when answered.

A process of its own on raw sockets and one selector. While the clock runs it reads bytes and
looks for the first text; it counts when a stream has ended.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import time
from dataclasses import dataclass, field
from random import Random
from typing import Any

from benchmarks.workers.http_load import usage_of, words
from benchmarks.workers.wire import open_channel, serve_commands

_TEXT = re.compile(rb'"content": ?"[^"]')
_END = b"0\r\n\r\n"
TIMEOUT_S = 600.0


@dataclass(slots=True)
class Connection:
    """One client: a connection and the request that is on it."""

    sock: socket.socket
    received: bytearray = field(default_factory=bytearray)
    sent: float = 0.0
    first: float = 0.0


@dataclass(slots=True)
class Counts:
    """What came back over all connections."""

    tokens: int = 0
    events: int = 0
    bytes: int = 0
    ttft_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)


def request_bytes(command: dict[str, Any], rng: Random) -> bytes:
    """A whole request for exactly ``tokens`` tokens, on a connection that stays open."""
    payload = json.dumps(
        {
            "model": command["model"],
            "messages": [{"role": "user", "content": words(rng, command["words"])}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": command["tokens"],
            "temperature": 0,
            "ignore_eos": True,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {command['host']}:{command['port']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


def finish(connection: Connection, counts: Counts, wanted: int) -> None:
    """Count an ended stream."""
    now = time.perf_counter()
    received = bytes(connection.received)
    tokens = usage_of(received)["completion_tokens"]
    if tokens != wanted:
        raise RuntimeError(f"{tokens} tokens came, {wanted} were asked for")
    counts.tokens += tokens
    counts.events += received.count(b"data: {")
    counts.bytes += len(received)
    # A text of one token may show nothing: special tokens have no text.
    counts.ttft_s.append((connection.first or now) - connection.sent)
    counts.total_s.append(now - connection.sent)


def run(command: dict[str, Any]) -> dict[str, Any]:
    """Send ``requests`` requests over ``streams`` connections."""
    rng = Random(command["seed"])
    payloads = [request_bytes(command, rng) for _ in range(command["requests"])]
    selector = selectors.DefaultSelector()
    counts = Counts()
    cpu = time.process_time()
    begin = time.perf_counter()

    def send(connection: Connection) -> None:
        connection.received.clear()
        connection.first = 0.0
        connection.sent = time.perf_counter()
        connection.sock.sendall(payloads.pop())

    for _ in range(min(command["streams"], command["requests"])):
        sock = socket.create_connection((command["host"], command["port"]))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(sock)
        selector.register(sock, selectors.EVENT_READ, connection)
        send(connection)
    while selector.get_map():
        for key, _ in selector.select(30.0):
            connection = key.data
            data = connection.sock.recv(1 << 16)
            connection.received += data
            if not connection.first and _TEXT.search(connection.received):
                connection.first = time.perf_counter()
            ended = connection.received.endswith(_END)
            if not data and not ended:
                raise RuntimeError(f"the connection was closed: {connection.received[-300:]!r}")
            if ended:
                finish(connection, counts, command["tokens"])
                if payloads:
                    send(connection)
                else:
                    selector.unregister(connection.sock)
                    connection.sock.close()
        if time.perf_counter() - begin > TIMEOUT_S:
            raise RuntimeError(f"the streams did not end within {TIMEOUT_S:.0f} s")
    return {
        "seconds": time.perf_counter() - begin,
        "client_cpu_s": time.process_time() - cpu,
        "requests": command["requests"],
        "tokens": counts.tokens,
        "events": counts.events,
        "bytes": counts.bytes,
        "ttft_s": counts.ttft_s,
        "total_s": counts.total_s,
    }


def main() -> None:
    """Answer commands until told to quit."""
    serve_commands(run, {}, open_channel())


if __name__ == "__main__":
    main()
