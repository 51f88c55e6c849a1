"""Cloud Storage's JSON API for one bucket, and the metadata server, with faults to set."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "token-of-the-service-account"


class StorageServer:
    """Serves ``objects``, three to a page.

    Attributes:
        gate: files are sent only while it is set.
        cut: how often a file breaks off in its middle, by object.
        wrong: how often a file comes with other bytes, by object.
        refuse: status of every answer, None for none.
        ranges: the Range headers that came.
        tokens: the Authorization headers that came.
    """

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.gate = threading.Event()
        self.gate.set()
        self.cut: dict[str, int] = {}
        self.wrong: dict[str, int] = {}
        self.refuse: int | None = None
        self.ranges: list[str] = []
        self.tokens: set[str | None] = set()
        handler = type("Handler", (_Handler,), {"storage": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self.host = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    storage: StorageServer
    wbufsize = -1

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        if parts.path.startswith("/computeMetadata/"):
            assert self.headers["Metadata-Flavor"] == "Google"
            return self._json(200, {"access_token": TOKEN, "expires_in": 3600})
        self.storage.tokens.add(self.headers["Authorization"])
        if self.storage.refuse is not None:
            return self._json(self.storage.refuse, {"error": {}})
        if parts.path == "/storage/v1/b/models/o":
            return self._json(200, self._page(query))
        assert query == {"alt": "media"}
        return self._file(unquote(parts.path.removeprefix("/storage/v1/b/models/o/")))

    def _page(self, query: dict[str, str]) -> dict[str, Any]:
        names = sorted(name for name in self.storage.objects if name.startswith(query["prefix"]))
        start = int(query.get("pageToken", "0"))
        items = [
            {
                "name": name,
                "size": str(len(self.storage.objects[name])),
                "md5Hash": base64.b64encode(digest(self.storage.objects[name])).decode(),
            }
            for name in names[start : start + 3]
        ]
        more = {"nextPageToken": str(start + 3)} if start + 3 < len(names) else {}
        return {"items": items, **more} if items else {}

    def _file(self, name: str) -> None:
        self.storage.gate.wait(60)
        content, asked = self.storage.objects[name], self.headers["Range"]
        start = 0
        if asked is not None:
            self.storage.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if self.storage.wrong.get(name, 0):
            self.storage.wrong[name] -= 1
            content = b"\0" * len(content)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content)
        if self.storage.cut.get(name, 0):
            self.storage.cut[name] -= 1
            end = start + (len(content) - start) // 2
        self.wfile.write(content[start:end])

    def _json(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def digest(content: bytes) -> bytes:
    return hashlib.md5(content, usedforsecurity=False).digest()
