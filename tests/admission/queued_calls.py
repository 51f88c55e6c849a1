"""Requests over sockets of their own, so that they can be left waiting, read later, or dropped."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

from server_process import PATIENCE_S, ServerProcess

KEYS = ("first-key-0123456789", "other-key-0123456789", "third-key-0123456789")
TOKEN_S = 0.02


class Call:
    """One request to chat completions.

    Args:
        fields: of the body. headers: with underscores for hyphens.
    """

    def __init__(
        self,
        server: ServerProcess,
        *,
        key: str = KEYS[0],
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> None:
        given = {"messages": [{"role": "user", "content": "hi"}], "ignore_eos": True}
        body = json.dumps({"max_tokens": 5, **given, **fields}).encode()
        head = {
            "Host": "localhost",
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "close",
            **(headers or {}),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S)
        request = f"POST /v1/chat/completions HTTP/1.1\r\n{lines}\r\n".encode()
        self.socket.sendall(request + body)

    def drop(self) -> None:
        """Leave without an answer."""
        self.socket.close()

    def read_some(self) -> bytes:
        """What has come; waits for something."""
        return self.socket.recv(65536)

    def answer(self) -> tuple[int, dict[str, str], str]:
        """Status, headers by lower-case name, and the body as it came."""
        with self.socket:
            data = b""
            while part := self.socket.recv(65536):
                data += part
        head, _, body = data.partition(b"\r\n\r\n")
        first, *rest = head.decode().split("\r\n")
        pairs = (line.partition(": ") for line in rest)
        return int(first.split()[1]), {n.lower(): v for n, _, v in pairs}, body.decode()


def depth(server: ServerProcess) -> int:
    """Requests in the gateway's queue."""
    samples = server.metrics().items()
    return int(sum(value for name, value in samples if name.startswith("gateway_queue_depth")))


def is_free(server: ServerProcess) -> bool:
    """Whether nothing waits or runs anywhere."""
    samples = server.metrics()
    names = ("gateway_requests_in_flight", "vllm:num_requests_running", "vllm:num_requests_waiting")
    return not any(samples[name] for name in names) and not depth(server)


@contextlib.contextmanager
def occupied(server: ServerProcess) -> Iterator[Call]:
    """The engine's only place is taken, by somebody else."""
    call = Call(server, key=KEYS[2], stream=True, max_tokens=8000)
    try:
        assert call.read_some().startswith(b"HTTP/1.1 200")
        yield call
    finally:
        call.drop()


def queue_up(server: ServerProcess, *calls: dict[str, Any]) -> list[Call]:
    """Requests that wait, in this order."""
    made = []
    for fields in calls:
        before = depth(server)
        made.append(Call(server, **fields))
        server.wait_for(lambda most=before: depth(server) > most, "the request to wait")  # type: ignore[misc]
    return made


class Ends:
    """Access-log lines of requests that end from now on in one way, in that order."""

    def __init__(self, server: ServerProcess, outcome: str) -> None:
        self._server = server
        self._outcome = outcome
        self._before = len(self._lines())

    def lines(self, count: int) -> list[dict[str, Any]]:
        """The first ``count`` of them; a line is written a moment after its answer."""
        self._server.wait_for(lambda: len(self._lines()) >= self._before + count, "the log")
        return self._lines()[self._before : self._before + count]

    def _lines(self) -> list[dict[str, Any]]:
        return [line for line in self._server.log_lines() if line.get("outcome") == self._outcome]
