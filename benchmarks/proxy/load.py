"""The load: chat completions over kept connections, from one process on raw sockets.

While the clock runs it reads bytes and notes when they came; it looks into them afterwards.
Times are by ``CLOCK_MONOTONIC``, which all processes of a machine share, so that the stamps in
the pieces of a stream tell how long each piece was on its way.
"""

from __future__ import annotations

import json
import re
import select
import socket
import time
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

from benchmarks.proxy.arrivals import Arrivals, Closed, Poisson
from benchmarks.workers.wire import open_channel, serve_commands

_STAMP = re.compile(rb'"content": ?"(\d{18}) "')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_LAST_CHUNK = b"0\r\n\r\n"
_SYSTEM = "You are a helpful assistant. " * 12
_QUESTION = "What does it cost to stand between a client and a server that answers? " * 4
# Of the answers that are still out when the last request has been sent.
PATIENCE_NS = 30 * 10**9
MOST_OUTSTANDING = 4000


class CannotKeepUp(Exception):
    """More requests are open than a test of latency makes sense with."""


@dataclass(slots=True)
class Exchange:
    """One request and what came back.

    Attributes:
        sent: nanoseconds. reads: (bytes so far, nanoseconds) after every read.
        length: of the whole response, 0 before its head has come, -1 if chunked.
    """

    sent: int
    received: bytearray = field(default_factory=bytearray)
    reads: list[tuple[int, int]] = field(default_factory=list)
    length: int = 0
    complete: bool = False

    def take(self, data: bytes, now: int) -> bool:
        """Note what was read; whether the response is whole."""
        self.received += data
        self.reads.append((len(self.received), now))
        if not self.length:
            end = self.received.find(b"\r\n\r\n")
            if end < 0:
                return False
            found = _LENGTH.search(self.received, 0, end + 2)
            self.length = end + 4 + int(found[1]) if found else -1
        if self.length > 0:
            self.complete = len(self.received) >= self.length
        else:
            self.complete = self.received.endswith(_LAST_CHUNK)
        return self.complete


class Load:
    """Sends as ``arrivals`` says and keeps everything that comes back."""

    def __init__(self, address: tuple[str, int], payload: bytes, arrivals: Arrivals) -> None:
        self._address = address
        self._payload = payload
        self._arrivals = arrivals
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._idle: list[int] = []
        self._open: dict[int, Exchange] = {}
        self.exchanges: list[Exchange] = []

    def run(self) -> float:
        """Seconds from the first request to the last answer; raises CannotKeepUp."""
        try:
            return self._run()
        finally:
            for sock in self._sockets.values():
                sock.close()
            self._poll.close()

    def _run(self) -> float:
        begin = now = time.monotonic_ns()
        arrivals = self._arrivals
        arrivals.start(begin)
        given_up_at = None
        while True:
            while arrivals.due(now, len(self._open)):
                self._send()
                now = time.monotonic_ns()
            if len(self._open) > MOST_OUTSTANDING:
                raise CannotKeepUp(f"{MOST_OUTSTANDING} requests are open at once")
            if arrivals.over(now):
                given_up_at = given_up_at or now + PATIENCE_NS
                if not self._open or now > given_up_at:
                    return (now - begin) / 1e9
            at = arrivals.next_at()
            wait = 0.1 if at is None else min(0.1, max(0, at - now) / 1e9)
            # epoll waits in whole milliseconds, select on the epoll in microseconds.
            if wait:
                select.select([self._poll], [], [], wait)
            for descriptor, _ in self._poll.poll(0):
                self._read(descriptor)
            now = time.monotonic_ns()

    def _send(self) -> None:
        descriptor = self._idle.pop() if self._idle else self._connect()
        exchange = Exchange(time.monotonic_ns())
        self._open[descriptor] = exchange
        self.exchanges.append(exchange)
        try:
            self._sockets[descriptor].sendall(self._payload)
        except OSError:
            self._drop(descriptor)

    def _connect(self) -> int:
        sock = socket.create_connection(self._address, timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sockets[sock.fileno()] = sock
        self._poll.register(sock.fileno(), select.EPOLLIN)
        return sock.fileno()

    def _read(self, descriptor: int) -> None:
        try:
            data = self._sockets[descriptor].recv(1 << 17)
        except OSError:
            data = b""
        exchange = self._open.get(descriptor)
        if not data or exchange is None:
            self._drop(descriptor)
        elif exchange.take(data, time.monotonic_ns()):
            del self._open[descriptor]
            self._idle.append(descriptor)

    def _drop(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        self._sockets.pop(descriptor).close()
        self._open.pop(descriptor, None)
        if descriptor in self._idle:
            self._idle.remove(descriptor)


def request_bytes(command: dict[str, Any]) -> bytes:
    """A whole request of about 700 bytes, on a connection that stays open."""
    payload = json.dumps(
        {
            "model": "bench",
            "messages": [
                {"role": "system", "content": _SYSTEM},
                {"role": "user", "content": _QUESTION},
            ],
            "max_tokens": command["pieces"],
            "temperature": 0.7,
            "stream": command["stream"],
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {command['host']}:{command['port']}\r\n"
        f"Authorization: Bearer {command['key']}\r\nUser-Agent: bench\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


def fault_of(exchange: Exchange, stream: bool, pieces: int) -> str | None:
    """What is wrong with an answer, or None."""
    received = exchange.received
    if not exchange.complete:
        return f"broken off or not answered: {bytes(received[:200])!r}"
    if not received.startswith(b"HTTP/1.1 200"):
        return f"refused: {bytes(received[:600])!r}"
    if not stream:
        return None if b'"finish_reason"' in received else f"no answer: {bytes(received[-300:])!r}"
    found = len(_STAMP.findall(received))
    if found != pieces or b"data: [DONE]" not in received:
        return f"{found} of {pieces} pieces: {bytes(received[-300:])!r}"
    return None


def delays(exchange: Exchange) -> list[tuple[int, int]]:
    """(arrival, time on the way) of every piece, in nanoseconds."""
    ends = [size for size, _ in exchange.reads]
    found = []
    for stamp in _STAMP.finditer(exchange.received):
        at = exchange.reads[bisect_left(ends, stamp.end())][1]
        found.append((at, at - int(stamp[1])))
    return found


def summary(values_ns: list[int]) -> dict[str, float]:
    """Percentiles by nearest rank, in milliseconds."""
    if not values_ns:
        return {}
    ordered = sorted(values_ns)

    def rank(share: float) -> float:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6

    return {"p50": rank(0.5), "p95": rank(0.95), "p99": rank(0.99), "max": ordered[-1] / 1e6}


def run(command: dict[str, Any]) -> dict[str, Any]:
    """One load; ``rate`` makes it an open loop, ``connections`` a closed one."""
    seconds, stream, pieces = command["seconds"], command["stream"], command["pieces"]
    arrivals: Arrivals = (
        Poisson(command["rate"], seconds, command["seed"])
        if "rate" in command
        else Closed(command["connections"], seconds)
    )
    load = Load((command["host"], command["port"]), request_bytes(command), arrivals)
    cpu = time.process_time()
    elapsed = load.run()
    cpu = time.process_time() - cpu
    faults: list[str] = []
    total, first, way = [], [], []
    for exchange in load.exchanges:
        fault = fault_of(exchange, stream, pieces)
        if fault is not None:
            faults.append(fault)
            continue
        total.append(exchange.reads[-1][1] - exchange.sent)
        if stream:
            found = delays(exchange)
            first.append(found[0][0] - exchange.sent)
            way += [delay for _, delay in found]
    return {
        "seconds": elapsed,
        "requests": len(total),
        "faults": len(faults),
        "first_fault": faults[0] if faults else None,
        "load_cpu_s": cpu,
        "total_ms": summary(total),
        "ttft_ms": summary(first),
        "piece_ms": summary(way),
        "lag_ms": summary(arrivals.lag_ns),
    }


def main() -> None:
    """Answer commands until told to quit."""
    serve_commands(run, {}, open_channel())


if __name__ == "__main__":
    main()
