"""Vertex AI's front of an endpoint, as far as containers and clients can see it.

``…/endpoints/E[/deployedModels/D]/invoke/PATH`` goes to PATH of the container, ``:rawPredict`` and
``:streamRawPredict`` to its predict route with any body, ``:predict`` there with ``instances``
only, and its answer gets the ids that Vertex adds. Bodies beyond the endpoint type's limit end
here. See custom-container-requirements and choose-endpoint-type in Vertex AI's documentation.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

DEDICATED_BYTES = 10_000_000
SHARED_BYTES = 1_500_000
ENDPOINT = "/v1/projects/p/locations/us-central1/endpoints/77"
DNS = "77.us-central1-1234.prediction.vertexai.goog"
_PATH = re.compile(
    r"/v1/projects/[^/]+/locations/[^/]+/endpoints/\d+(?:/deployedModels/(?P<deployed>\d+))?"
    r"(?:/invoke(?P<invoke>/[^?]+)|:(?P<method>predict|rawPredict|streamRawPredict))"
)
# Of a single connection, so not the container's business (RFC 9110, 7.6.1).
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host", "content-length"}


class VertexFront:
    """Runs on a free port in threads of its own.

    Attributes:
        containers: base URL by id of the deployed model.
        split: gives traffic in per cent by id; requests are dealt out in this proportion.
        passes_token: whether the caller's ``Authorization`` reaches the container, of which
            Vertex AI's documentation says nothing.
        served: requests by id of the deployed model and status.
    """

    def __init__(
        self,
        containers: dict[str, str],
        *,
        predict_route: str = "/predict",
        limit: int = DEDICATED_BYTES,
        passes_token: bool = True,
    ) -> None:
        self.containers = containers
        self.split: Callable[[], dict[str, int]] = lambda: {next(iter(self.containers)): 100}
        self.predict_route = predict_route
        self.limit = limit
        self.passes_token = passes_token
        self.served: list[tuple[str, int]] = []
        self._dealt: dict[str, int] = {}
        self._lock = threading.Lock()
        front = self

        class Handler(_Handler):
            owner = front

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Of the front."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def invoke(self) -> str:
        """What a path of the container is appended to."""
        return f"{self.url}{ENDPOINT}/invoke"

    def choose(self) -> str:
        """The deployed model that is furthest behind its share."""
        with self._lock:
            total = sum(self._dealt.values()) + 1
            shares = {name: share for name, share in self.split().items() if share}
            behind = max(shares, key=lambda n: shares[n] * total / 100 - self._dealt.get(n, 0))
            self._dealt[behind] = self._dealt.get(behind, 0) + 1
            return behind

    def note(self, deployed: str, status: int) -> None:
        with self._lock:
            self.served.append((deployed, status))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: VertexFront
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        matched = _PATH.fullmatch(path)
        if matched is None:
            return self._refuse(404, "NOT_FOUND", f"{path} is not of an endpoint")
        length = int(self.headers.get("content-length") or 0)
        if length > self.owner.limit:
            self.close_connection = True
            return self._refuse(413, "INVALID_ARGUMENT", "Request payload size exceeds the limit")
        body = self.rfile.read(length)
        deployed = matched["deployed"] or self.owner.choose()
        if (inner := matched["invoke"]) is not None:
            if query:
                inner = f"{inner}?{query}"
            return self._pass(deployed, inner, body)
        if matched["method"] == "predict":
            unknown = set(json.loads(body)) - {"instances", "parameters", "labels"}
            if unknown:
                return self._refuse(400, "INVALID_ARGUMENT", f'Unknown name "{unknown.pop()}"')
            return self._pass(deployed, self.owner.predict_route, body, adds_ids=True)
        return self._pass(deployed, self.owner.predict_route, body)

    def _pass(self, deployed: str, path: str, body: bytes, *, adds_ids: bool = False) -> None:
        address = urlsplit(self.owner.containers[deployed])
        container = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP}
        headers["Host"] = DNS
        if not self.owner.passes_token:
            headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
        try:
            container.request(self.command, path, body or None, headers)
            answer = container.getresponse()
        except OSError:
            self.owner.note(deployed, 503)
            return self._refuse(503, "UNAVAILABLE", "the container does not answer")
        self.owner.note(deployed, answer.status)  # before its caller can go on
        try:
            self._answer(deployed, answer, adds_ids)
        finally:
            container.close()

    def _answer(self, deployed: str, answer: http.client.HTTPResponse, adds_ids: bool) -> None:
        kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in _HOP]
        self.send_response(answer.status)
        for name, value in kept:
            self.send_header(name, value)
        self.send_header("x-vertex-ai-deployed-model-id", deployed)
        if adds_ids:
            document = json.loads(answer.read())
            if answer.status == 200:
                document |= {"deployedModelId": deployed, "modelVersionId": "1"}
            data = json.dumps(document).encode()
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        while data := answer.read1(65536):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _refuse(self, code: int, status: str, message: str) -> None:
        """As Google's front ends answer: google.rpc.Status in JSON."""
        data = json.dumps({"error": {"code": code, "status": status, "message": message}}).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
