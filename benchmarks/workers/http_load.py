"""A load generator for streamed chat completions, cheap enough not to be measured itself.

Raw sockets and one selector: it reads bytes while the clock runs and looks into them after.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from dataclasses import dataclass, field
from random import Random
from typing import Any

from benchmarks.workers.wire import open_channel, serve_commands

END = b"data: [DONE]"


@dataclass(slots=True)
class Exchange:
    """One request and everything that came back."""

    sock: socket.socket
    received: bytearray = field(default_factory=bytearray)
    first: float = 0.0
    done: bool = False


def words(rng: Random, count: int) -> str:
    """Text that no other request shares a prefix with."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(rng.choices(letters, k=4)) for _ in range(count))


def request_bytes(host: str, port: int, prompt: str, tokens: int, extra: bool) -> bytes:
    """A whole HTTP request; ``extra`` asks for exactly ``tokens`` tokens."""
    body: dict[str, Any] = {
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
        "temperature": 0,
    }
    if extra:
        body["ignore_eos"] = True
    payload = json.dumps(body).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\n"
        "Content-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


def usage_of(received: bytes) -> dict[str, int]:
    """The usage of a finished stream; raises with the start of anything else."""
    head, _, rest = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"the server answered {received[:300]!r}")
    for line in reversed(rest.split(b"\n")):
        if line.startswith(b"data: {") and b'"usage"' in line:
            usage = json.loads(line[6:]).get("usage")
            if usage:
                return {name: int(usage[name]) for name in ("prompt_tokens", "completion_tokens")}
    raise RuntimeError(f"the stream ended without usage: {received[-300:]!r}")


def run_batch(command: dict[str, Any]) -> dict[str, Any]:
    """Send all requests at once and read until every stream has ended."""
    host, port, streams = command["host"], command["port"], command["streams"]
    rng = Random(command["seed"])
    selector = selectors.DefaultSelector()
    exchanges = []
    payloads = []
    for _ in range(streams):
        exchanges.append(Exchange(socket.create_connection((host, port))))
        text = words(rng, command["words"])
        payloads.append(
            request_bytes(host, port, text, command["tokens"], command.get("exact", True))
        )
    start = time.perf_counter()
    for exchange, payload in zip(exchanges, payloads, strict=True):
        exchange.sock.sendall(payload)
        exchange.sock.setblocking(False)
        selector.register(exchange.sock, selectors.EVENT_READ, exchange)
    left = streams
    while left:
        for key, _ in selector.select(60.0):
            exchange = key.data
            data = exchange.sock.recv(1 << 16)
            if not exchange.first and b"data:" in data:
                exchange.first = time.perf_counter() - start
            exchange.received += data
            if not data or END in exchange.received[-64 - len(data) :]:
                exchange.done = True
                selector.unregister(exchange.sock)
                left -= 1
        if time.perf_counter() - start > 600:
            raise RuntimeError("the streams did not end within 600 s")
    seconds = time.perf_counter() - start
    for exchange in exchanges:
        exchange.sock.close()
    usages = [usage_of(bytes(exchange.received)) for exchange in exchanges]
    return {
        "seconds": seconds,
        "tokens": sum(usage["completion_tokens"] for usage in usages),
        "prompt_lens": [usage["prompt_tokens"] for usage in usages],
        "ttft_s": [exchange.first for exchange in exchanges],
        "cpu_s": time.process_time(),
    }


def main() -> None:
    """Answer commands over the same protocol as the engines' workers."""
    serve_commands(run_batch, {}, open_channel())


if __name__ == "__main__":
    main()
