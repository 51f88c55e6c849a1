"""An OpenAI-compatible server whose streams end when the test lets them."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_S = 60.0


class HeldUpstream:
    """Streams its name, waits where the model is ``held`` until ``release`` is set, and ends.

    Attributes:
        held: streams that wait at this moment.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = 0
        self.release = threading.Event()
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                owner.answer(self)

            def log_message(self, *_: Any) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers["content-length"])
        asked = json.loads(request.rfile.read(length))
        if not asked.get("stream"):
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            message = {"role": "assistant", "content": self.name}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            body = json.dumps(answer_of(asked, "chat.completion", choice) | {"usage": usage})
            request.send_response(200)
            request.send_header("content-type", "application/json")
            request.send_header("content-length", str(len(body)))
            request.end_headers()
            request.wfile.write(body.encode())
            return
        request.send_response(200)
        request.send_header("content-type", "text/event-stream")
        request.send_header("transfer-encoding", "chunked")
        request.end_headers()
        self._event(request, asked, {"content": self.name}, None)
        if asked["model"] == "held":
            with self._lock:
                self.held += 1
            self.release.wait(PATIENCE_S)
            with self._lock:
                self.held -= 1
        self._event(request, asked, {"content": "!"}, None)
        self._event(request, asked, {}, "stop")
        chunk(request, b"data: [DONE]\n\n")
        request.wfile.write(b"0\r\n\r\n")

    def _event(
        self, request: BaseHTTPRequestHandler, asked: Any, delta: Any, reason: str | None
    ) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        event = answer_of(asked, "chat.completion.chunk", choice)
        chunk(request, b"data: " + json.dumps(event).encode() + b"\n\n")

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(PATIENCE_S)


def answer_of(asked: Any, kind: str, choice: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": kind,
        "created": 1,
        "model": asked["model"],
        "choices": [choice],
    }


def chunk(request: BaseHTTPRequestHandler, data: bytes) -> None:
    request.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
    request.wfile.flush()
