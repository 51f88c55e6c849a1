"""A server that answers as the name of the model in the request says; a fault injector."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

PROMPT_TOKENS = 7
SLOW_S = 0.3
TOGETHER = 20


class FaultyServer(ThreadingHTTPServer):
    """Attributes: bodies: every request in the order of arrival."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.released = threading.Event()
        self.arrived = threading.Condition()
        self.waiting = 0
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> FaultyServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of these tests hang up; that is no news."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def do_GET(self) -> None:
        """The list of models."""
        self.answer(200, {"data": [{"id": "fine"}]})

    def do_POST(self) -> None:
        """What the model is called."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        self.server.headers.append(dict(self.headers))
        if self.path.endswith("/tokenize"):
            return self.answer(404, {"detail": "Not Found"})
        # The first request only finds out whether the server is there.
        tried_out = sum(1 for one in self.server.bodies if "stream" in one) > 1
        name = body["model"].removeprefix("later-")
        if body["model"].startswith("later-") and not tried_out:
            name = "fine"
        return getattr(self, name.replace("-", "_"))(body)

    def answer(self, status: int, document: Any) -> None:
        """A short answer."""
        payload = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def stream(self, *events: dict[str, Any] | str, end: bool = True) -> None:
        """Server-sent events in chunks."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            text = event if isinstance(event, str) else json.dumps(event)
            self.chunk(f"data: {text}\n\n".encode())
        if end:
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")
        else:
            self.close_connection = True

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    # What models do

    def fine(self, body: dict[str, Any]) -> None:
        tokens = body.get("max_tokens") or body.get("max_completion_tokens") or 3
        self.stream(role(), *(text("ab ") for _ in range(tokens)), finish(), usage(tokens))

    def packed(self, body: dict[str, Any]) -> None:
        """Four tokens in the first event and eight in the second."""
        self.stream(role(), text("abcd" * 4), text("abcd" * 8), finish(), usage(12))

    def uncounted(self, body: dict[str, Any]) -> None:
        self.stream(role(), text("a"), text("b"), text("c"), finish())

    def bad_request(self, body: dict[str, Any]) -> None:
        self.answer(400, {"error": {"message": "temperature is too high", "type": "x"}})

    def broken(self, body: dict[str, Any]) -> None:
        self.answer(500, {"error": {"message": "the engine fell over"}})

    def limited(self, body: dict[str, Any]) -> None:
        self.answer(429, {"detail": "slow down"})

    def cut_off(self, body: dict[str, Any]) -> None:
        self.stream(role(), text("a"), text("b"), end=False)

    def unfinished(self, body: dict[str, Any]) -> None:
        """A clean end of the body, but neither a reason nor [DONE]."""
        self.stream(role(), text("a"), text("b"), end=False)
        self.chunk(b"")

    def hung_up(self, body: dict[str, Any]) -> None:
        self.close_connection = True
        self.connection.shutdown(2)

    def stuck(self, body: dict[str, Any]) -> None:
        self.stream(role(), text("a"), end=False)
        self.server.released.wait(60)

    def failing(self, body: dict[str, Any]) -> None:
        self.stream(role(), text("a"), {"error": {"message": "out of memory", "code": 500}})

    def garbled(self, body: dict[str, Any]) -> None:
        self.stream(role(), "{not json")

    def not_streaming(self, body: dict[str, Any]) -> None:
        self.answer(200, {"choices": [{"message": {"content": "hello"}}]})

    def slow(self, body: dict[str, Any]) -> None:
        time.sleep(SLOW_S)
        self.fine(body)

    def together(self, body: dict[str, Any]) -> None:
        """Answers nobody before TOGETHER requests have come."""
        with self.server.arrived:
            self.server.waiting += 1
            self.server.arrived.notify_all()
            self.server.arrived.wait_for(lambda: self.server.waiting >= TOGETHER, 60)
        self.fine(body)

    def picky(self, body: dict[str, Any]) -> None:
        """Knows neither ignore_eos nor max_tokens, as OpenAI's newer models."""
        for name, hint in (("ignore_eos", ""), ("max_tokens", " Use 'max_completion_tokens'.")):
            if name in body:
                message = f"Unrecognized request argument supplied: {name}.{hint}"
                return self.answer(400, {"error": {"message": message}})
        return self.fine(body)


def role() -> dict[str, Any]:
    """The opening of an answer, which holds no token."""
    return {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}


def text(content: str) -> dict[str, Any]:
    """A piece of an answer."""
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}]}


def finish() -> dict[str, Any]:
    """Its end."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}


def usage(tokens: int) -> dict[str, Any]:
    """The counts."""
    counts = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": tokens}
    return {"choices": [], "usage": counts}
