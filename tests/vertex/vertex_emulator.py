"""Vertex AI's control plane on a port of this machine, for the unmodified SDK.

Bodies are parsed with the library's own messages: a field that the API's version does not have is
a 400. What is changed is visible only once its operation has been polled often enough. Faults are
set from tests; all that a test may look at is in attributes.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from google.protobuf import json_format
from threaded_http import ThreadedHttp
from vertex_emulated_checks import Refused
from vertex_emulated_rules import Rules

STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
}
QUERY = {"$alt", "endpointId", "updateMask", "filter", "pageSize", "pageToken", "orderBy"}


@dataclass
class Seen:
    """One request. ``method`` is such as ``deployModel``; ``changes`` whether it is no GET."""

    verb: str
    path: str
    query: dict[str, str]
    body: dict[str, Any]
    method: str
    changes: bool


@dataclass
class Operation:
    """Under way until it has been asked for ``left`` times more."""

    name: str
    method: str
    metadata: dict[str, Any]
    complete: Any
    left: int
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or self.result is not None

    def poll(self, failure: dict[str, Any] | None) -> None:
        if self.done or self.left < 0:
            return
        self.left -= 1
        if self.left < 0:
            self.error = failure
            if failure is None:
                self.result = self.complete()

    def as_json(self) -> dict[str, Any]:
        found = {"name": self.name, "metadata": self.metadata, "done": self.done}
        if self.error is not None:
            found["error"] = self.error
        if self.result is not None:
            found["response"] = self.result
        return found


@dataclass
class Emulator(ThreadedHttp):
    """The cloud.

    Attributes:
        polls: how often an operation is asked for before it is done.
        refuse: by method, answers (code, message) to give in place of the next ones.
        fail: by method, errors (gRPC code, message) that its next operations end with.
        cut_at: the changing request (from 0) whose connection breaks, ...
        cut_after: ... after it has been carried out instead of before.
        halted: methods whose operations go no further.
        quota: accelerators that may be deployed, by type.
    """

    polls: int = 2
    refuse: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    fail: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    cut_at: int | None = None
    cut_after: bool = False
    halted: set[str] = field(default_factory=set)
    quota: dict[str, int] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    operations: dict[str, Operation] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self.rules = Rules(self.quota)

    @property
    def changes(self) -> list[Seen]:
        """Requests that change something, in their order."""
        return [each for each in self.seen if each.changes]

    @property
    def methods(self) -> list[str]:
        return [each.method for each in self.changes]

    def snapshot(self) -> dict[str, Any]:
        """Everything that exists, without what the cloud makes up by itself."""
        return self.rules.snapshot()

    def begin(self, parent: str, method: str, complete: Any) -> dict[str, Any]:
        number = len(self.operations) + 1000
        kind = f"google.cloud.aiplatform.v1.{method[0].upper()}{method[1:]}OperationMetadata"
        known = {
            "createEndpoint", "deployModel", "undeployModel", "uploadModel", "mutateDeployedModel"
        }  # fmt: skip
        if method not in known:
            kind = "google.cloud.aiplatform.v1.DeleteOperationMetadata"
        metadata = {"@type": f"type.googleapis.com/{kind}", "genericMetadata": {}}
        if method == "deployModel":
            metadata["deploymentStage"] = "STARTING_MODEL_SERVER"
        operation = Operation(
            f"{parent}/operations/{number}", method, metadata, complete, self.polls
        )
        self.operations[operation.name] = operation
        if self.polls == 0:
            self.advance(operation)
        return operation.as_json()

    def advance(self, operation: Operation) -> None:
        if operation.method in self.halted:
            return
        failure = None
        if operation.left == 0 and (errors := self.fail.get(operation.method)):
            code, message = errors.pop(0)
            failure = {"code": code, "message": message}
        operation.poll(failure)

    def answer(self, seen: Seen, version: str) -> dict[str, Any]:
        """Raises Refused and ParseError."""
        if waiting := self.refuse.get(seen.method):
            code, message = waiting.pop(0)
            raise Refused(code, message)
        if seen.method == "getOperation":
            if seen.path not in self.operations:
                raise Refused(404, f"{seen.path} is not found")
            self.advance(self.operations[seen.path])
            return self.operations[seen.path].as_json()
        if seen.method == "listOperations":
            under = [o for n, o in self.operations.items() if n.startswith(seen.path + "/")]
            return {"operations": [o.as_json() for o in under]}
        return self.rules.call(seen, version, self.begin)


def method_of(verb: str, path: str) -> str:
    """The API's name for a request, ``unknown`` for none."""
    last, _, custom = path.rsplit("/", 1)[-1].partition(":")
    parts = path.split("/")
    if parts[-1] == "operations" and verb == "GET":
        return "listOperations"
    if len(parts) > 1 and parts[-2] == "operations" and verb == "GET":
        return "getOperation"
    if custom in ("deployModel", "undeployModel", "mutateDeployedModel") and verb == "POST":
        return custom
    if custom == "upload" and verb == "POST":
        return "uploadModel"
    if custom == "update" and verb == "POST":
        return "updateEndpointLongRunning"
    if custom:
        return "unknown"
    if last in ("endpoints", "models"):
        one = {"endpoints": "createEndpoint"}.get(last, "unknown")
        return f"list{last.capitalize()}" if verb == "GET" else one
    kind = {"endpoints": "Endpoint", "models": "Model"}.get(parts[-2] if len(parts) > 1 else "")
    names = {"GET": "get", "PATCH": "update", "DELETE": "delete"}
    return f"{names[verb]}{kind}" if kind and verb in names else "unknown"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart
    wbufsize = -1  # a head and a body in two packets wait for each other 40 ms
    cloud: Emulator

    def log_message(self, *_: Any) -> None:
        pass

    def _any(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        raw = self.rfile.read(length)
        parts = urlsplit(self.path)
        version, _, path = unquote(parts.path).lstrip("/").partition("/")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        body = json.loads(raw) if raw else {}
        method = method_of(self.command, path)
        seen = Seen(self.command, path, query, body, method, self.command != "GET")
        with self.cloud.lock:
            position = len(self.cloud.changes)
            self.cloud.seen.append(seen)
            cut = seen.changes and position == self.cloud.cut_at
            if cut and not self.cloud.cut_after:
                return self._cut()
            try:
                if set(query) - QUERY:
                    raise Refused(400, f"unknown parameters {sorted(set(query) - QUERY)}")
                if version not in ("v1", "v1beta1") and not method.endswith(
                    ("Operation", "Operations")
                ):
                    raise Refused(404, f"no version {version}")
                code, answer = 200, self.cloud.answer(seen, version)
            except Refused as refused:
                code, answer = refused.code, self._fault(refused.code, refused.message)
            except json_format.ParseError as error:
                code, answer = 400, self._fault(400, f"Invalid JSON payload: {error}")
        if cut:
            return self._cut()
        content = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _fault(self, code: int, message: str) -> dict[str, Any]:
        return {"error": {"code": code, "message": message, "status": STATUS[code]}}

    def _cut(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.connection.close()

    do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815


Emulator.handler = _Handler
