"""A local server that speaks as much of the Hugging Face hub's protocol as a download needs."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class FakeHub:
    """One model and how to misbehave about it.

    Attributes:
        files: name to content. Names in ``large`` are listed with a SHA-256, as LFS files.
        break_at: name to the byte after which the connection of its first GET breaks.
        stall_at: name to the byte after which its first GET sends nothing until ``go_on``.
        corrupt: names that are sent with one byte changed.
        gated: answer 401 as for a model whose terms were not accepted.
        ranges: (name, Range header) of every GET.
        tokens: Authorization headers seen.
    """

    model: str
    files: dict[str, bytes]
    large: tuple[str, ...] = ("model.safetensors",)
    revisions: tuple[str, ...] = ("main", COMMIT)
    break_at: dict[str, int] = field(default_factory=dict)
    stall_at: dict[str, int] = field(default_factory=dict)
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    corrupt: tuple[str, ...] = ()
    gated: bool = False
    failing: int | None = None
    ranges: list[tuple[str, str | None]] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)

    def __enter__(self) -> FakeHub:
        hub = self

        class Handler(_Handler):
            state = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub = self.state
        path = self.path.split("?")[0]
        if path != "/api/agent-harnesses":  # a list that huggingface_hub looks up for itself
            hub.tokens.add(self.headers.get("Authorization"))
        if hub.failing is not None:
            return self._error(hub.failing, "Broken", "the hub is ill")
        if hub.gated:
            return self._error(401, "GatedRepo", "Access to this model is restricted")
        if match := re.fullmatch(r"/api/models/(\w+/[\w.-]+)(?:/revision/([^/]+))?", path):
            name, revision = match[1], match[2] or "main"
            if self._known(name, revision):
                self._json(self._listing())
            return None
        if match := re.fullmatch(r"/(\w+/[\w.-]+)/resolve/([^/]+)/(.+)", path):
            if not self._known(match[1], match[2]):
                return None
            if match[3] not in hub.files:
                return self._error(404, "EntryNotFound", "no such file")
            return self._file(match[3], body)
        return self._error(404, "EntryNotFound", "no such page")

    def _known(self, name: str, revision: str) -> bool:
        if name != self.state.model:
            self._error(404, "RepoNotFound", "no such model")
            return False
        if revision not in self.state.revisions:
            self._error(404, "RevisionNotFound", "no such revision")
            return False
        return True

    def _listing(self) -> dict[str, object]:
        siblings = []
        for name, content in self.state.files.items():
            entry: dict[str, object] = {
                "rfilename": name,
                "size": len(content),
                "blobId": git_id(content),
            }
            if name in self.state.large:
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        return {"id": self.state.model, "sha": COMMIT, "siblings": siblings}

    def _file(self, name: str, body: bool) -> None:
        hub, content = self.state, self.state.files[name]
        digest = hashlib.sha256(content).hexdigest() if name in hub.large else git_id(content)
        start = 0
        if body:
            wanted = self.headers.get("Range")
            hub.ranges.append((name, wanted))
            if wanted:
                start = int(wanted.removeprefix("bytes=").split("-")[0])
        if name in hub.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        part = content[start:]
        self.send_response(206 if start else 200)
        if start:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(content)}")
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", COMMIT)
        if name in hub.large:
            self.send_header("X-Linked-Etag", f'"{digest}"')
            self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if not body:
            return
        stall = hub.stall_at.pop(name, None)
        if stall is not None:
            self.wfile.write(part[:stall])
            self.wfile.flush()
            hub.stalled.set()
            hub.go_on.wait()
            self.close_connection = True
            return
        cut = hub.break_at.pop(name, None)
        self.wfile.write(part if cut is None else part[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def _json(self, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, code: str, message: str) -> None:
        data = json.dumps({"error": message}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def git_id(content: bytes) -> str:
    """Git's object id of a blob."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
