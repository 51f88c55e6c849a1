"""What a container runs whose model is an artifact: fetch it, then become the gateway.

``python3 -m deploy.vertex.start``. Vertex AI restarts a container whose port takes no connections
for 40 seconds, and a model takes longer than that to arrive, so the port is bound meanwhile and
answers 503.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, Self

from deploy.vertex import VertexError
from deploy.vertex.storage import download

_WAITING = b'{"error":{"message":"the model is being downloaded","type":"service_unavailable"}}\n'


class WaitingRoom:
    """Answers 503 to everything on the container's port while it is entered."""

    def __init__(self, port: int) -> None:
        self._server = ThreadingHTTPServer(("0.0.0.0", port), _Waiting)  # noqa: S104
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Waiting(BaseHTTPRequestHandler):
    timeout = 10.0

    def _answer(self) -> None:
        self.send_response(503)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(_WAITING)))
        self.send_header("Retry-After", "10")
        self.end_headers()
        self.wfile.write(_WAITING)

    def log_message(self, *_: Any) -> None:
        """Probes come every few seconds: nothing worth a line."""

    do_GET = do_POST = _answer  # noqa: N815


def main() -> NoReturn:
    """Fetch ``AIP_STORAGE_URI`` and serve it. Ends with 1 and one sentence when it cannot."""
    # The first process of a container is not ended by signals that it does not handle.
    signal.signal(signal.SIGTERM, _end)
    uri, port = os.environ.get("AIP_STORAGE_URI", ""), os.environ.get("AIP_HTTP_PORT", "")
    if not uri or not port.isdigit():
        _fail("AIP_STORAGE_URI and AIP_HTTP_PORT are set by Vertex AI alone: run llm-gateway serve")
    cache = Path(os.environ.get("MODEL_CACHE_DIR") or Path.home() / ".cache" / "llm-gateway")
    folder = cache / "artifact"
    try:
        with WaitingRoom(int(port)):
            download(uri, folder, _tell)
    except (VertexError, OSError) as error:
        _fail(str(error))
    environment = {**os.environ, "MODEL_NAME": str(folder)}
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "gateway", "serve"], environment)  # noqa: S606


def _tell(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"llm-gateway: {message}\n")
    raise SystemExit(1)


def _end(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


if __name__ == "__main__":
    main()
