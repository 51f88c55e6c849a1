"""Cloud Run's control plane on a port of this machine, for the unmodified library.

Bodies are parsed with the library's own messages, so a field that the API does not have is a 400.
What is changed is there once its operation has been polled often enough.
"""

from __future__ import annotations

import copy
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from cloudrun_rules import Refused, check_service, parse, refuse_unless
from google.iam.v1 import iam_policy_pb2
from google.protobuf import json_format
from threaded_http import ThreadedHttp

STATUS = {
    400: "INVALID_ARGUMENT",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
}
SERVICE_TYPE = "type.googleapis.com/google.cloud.run.v2.Service"


@dataclass
class Operation:
    """Under way until it has been asked for ``left`` times more."""

    name: str
    left: int
    complete: Any
    error: dict[str, Any] | None = None
    result: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": self.name, "done": bool(self.error or self.result)}
        if self.error:
            found["error"] = self.error
        elif self.result:
            found["response"] = self.result
        return found


@dataclass
class CloudRunEmulator(ThreadedHttp):
    """The cloud.

    Attributes:
        polls: how often an operation is asked for before it is done.
        refuse: answers (code, message) in place of the next changing requests.
        fail: messages that the next operations end with, as when a container does not start.
        cut: the connection breaks after the next changing request has been carried out.
        changes: requests that changed something: method and path.
    """

    polls: int = 2
    refuse: list[tuple[int, str]] = field(default_factory=list)
    fail: list[str] = field(default_factory=list)
    cut: bool = False
    changes: list[tuple[str, str]] = field(default_factory=list)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    operations: dict[str, Operation] = field(default_factory=dict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def answer(self, verb: str, path: str, query: dict[str, str], body: Any) -> dict[str, Any]:
        """Raises Refused and ParseError."""
        unknown = set(query) - {"$alt", "serviceId"}
        refuse_unless(not unknown, f"unknown parameters {unknown}")
        if verb != "GET":
            self.changes.append((verb, path))
            if self.refuse:
                raise Refused(*self.refuse.pop(0))
        name, _, custom = path.partition(":")
        if custom == "getIamPolicy" and verb == "GET":
            self.existing(name)
            return self.policies.get(name, {"version": 1, "etag": "QUJD"})
        if custom == "setIamPolicy" and verb == "POST":
            return self.set_policy(name, body)
        if "/operations/" in name and verb == "GET":
            return self.poll(name)
        if name.endswith("/services") and verb == "POST":
            return self.create(name, query.get("serviceId", ""), body)
        if verb == "GET":
            return self.existing(name)
        if verb == "PATCH":
            return self.change(name, body)
        if verb == "DELETE":
            self.existing(name)
            return self.begin(name, lambda: self.services.pop(name))
        raise Refused(404, f"no method {verb} {path}")

    def existing(self, name: str) -> dict[str, Any]:
        if name not in self.services:
            raise Refused(404, f"Resource '{name.rpartition('/')[2]}' was not found")
        return self.services[name]

    def create(self, parent: str, service_id: str, body: Any) -> dict[str, Any]:
        name = f"{parent}/{service_id}"
        refuse_unless(service_id, "serviceId is missing")
        if name in self.services:
            raise Refused(409, f"Resource '{service_id}' already exists")
        message = parse(body)
        refuse_unless(not message.name, "name must be empty on create")
        check_service(message)
        self.services[name] = {"name": name, "reconciling": True, "generation": "0"}
        return self.begin(name, lambda: self.store(name, message))

    def change(self, name: str, body: Any) -> dict[str, Any]:
        found = self.existing(name)
        if found.get("reconciling"):
            raise Refused(409, "another change is under way")
        message = parse(body)
        check_service(message)
        found["reconciling"] = True
        return self.begin(name, lambda: self.store(name, message))

    def store(self, name: str, message: Any) -> dict[str, Any]:
        """The service as the cloud gives it: with what it adds by itself."""
        before = self.services[name]
        number = int(before["generation"]) + 1
        found = copy.deepcopy(json_format.MessageToDict(message))
        revision = f"{name}/revisions/{name.rpartition('/')[2]}-{number:05}-abc"
        found["template"].setdefault("annotations", {})["by"] = "the cloud"
        found["template"]["containers"][0]["resources"].setdefault("cpuIdle", False)
        found.setdefault("annotations", {})["added"] = "by the cloud"
        # Without a change of the template there is no new revision, which might do better.
        condition = {"type": "Ready", "state": "CONDITION_SUCCEEDED"}
        if before.get("template") == found["template"]:
            condition = before["terminalCondition"]
        self.services[name] = {
            **found,
            "name": name,
            "uid": "0-1-2",
            "etag": f"etag-{number}",
            "generation": str(number),
            "uri": f"https://{name.rpartition('/')[2]}-xyz-uc.a.run.app",
            "latestReadyRevision": revision,
            "latestCreatedRevision": revision,
            "terminalCondition": condition,
        }
        return self.services[name]

    def set_policy(self, name: str, body: Any) -> dict[str, Any]:
        self.existing(name)
        json_format.ParseDict({"resource": name, **body}, iam_policy_pb2.SetIamPolicyRequest())
        known = self.policies.get(name, {}).get("etag", "QUJD")
        if body["policy"].get("etag", known) != known:
            raise Refused(409, "the policy has changed")
        self.policies[name] = {**body["policy"], "etag": "REVG"}
        return self.policies[name]

    def begin(self, name: str, complete: Any) -> dict[str, Any]:
        parent = name.rpartition("/services/")[0]
        operation = Operation(f"{parent}/operations/{len(self.operations)}", self.polls, complete)
        if self.fail:
            told = self.fail.pop(0)

            def failed() -> None:
                complete()["terminalCondition"] = {
                    "type": "Ready",
                    "state": "CONDITION_FAILED",
                    "message": told,
                }
                operation.error = {"code": 9, "message": told}

            operation.complete = failed
        self.operations[operation.name] = operation
        return operation.as_json()

    def poll(self, name: str) -> dict[str, Any]:
        operation = self.operations.get(name)
        if operation is None:
            raise Refused(404, f"{name} was not found")
        if operation.result is None and operation.error is None:
            operation.left -= 1
            if operation.left < 0:
                result = operation.complete()
                if operation.error is None:
                    operation.result = {"@type": SERVICE_TYPE, **result}
        return operation.as_json()

    def settle(self) -> None:
        """Let everything that is under way come to its end."""
        for name in self.operations:
            while not self.poll(name)["done"]:
                pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a head and a body in two packets wait for each other 40 ms
    cloud: CloudRunEmulator

    def log_message(self, *_: Any) -> None:
        pass

    def _any(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        version, _, path = unquote(parts.path).lstrip("/").partition("/")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with self.cloud.lock:
            try:
                if version != "v2":
                    raise Refused(404, f"no version {version}")
                body = json.loads(raw) if raw else {}
                code, answer = 200, self.cloud.answer(self.command, path, query, body)
            except Refused as refused:
                code, answer = refused.code, _fault(refused.code, refused.message)
            except json_format.ParseError as error:
                code, answer = 400, _fault(400, f"Invalid JSON payload: {error}")
            if self.cloud.cut and self.command != "GET":
                self.cloud.cut = False
                self.close_connection = True
                return
        content = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815


def _fault(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": STATUS[code]}}


CloudRunEmulator.handler = _Handler
