"""Cloud Monitoring on a port of this machine: policies, dashboards, and figures to order.

Policies are parsed with the library's own messages, dashboards with the strict types of
deploy.vertex.dashboard_schema: a field that is not there is a 400. Like the real one it leaves
zeros out of its answers, and adds what is its own.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from google.cloud import monitoring_v3
from google.protobuf import json_format
from pydantic import ValidationError
from threaded_http import ThreadedHttp

from deploy.vertex.dashboard_schema import Dashboard

PAGE = 5
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")


class Refused(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass
class Figures:
    """Of one deployed model: what its three queries answer."""

    requests: float | None = 100
    errors: float | None = None
    p95_ms: float | None = 200.0


@dataclass
class MonitoringEmulator(ThreadedHttp):
    """The cloud.

    Attributes:
        figures: by id of deployed model.
        asked: every query in PromQL.
        changes: verb and path of each request that changes something.
        broken: how many of the next requests are answered with 503.
        denied: every request is answered with 403.
    """

    figures: dict[str, Figures] = field(default_factory=dict)
    policies: dict[str, dict[str, Any]] = field(default_factory=dict)
    dashboards: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    changes: list[tuple[str, str]] = field(default_factory=list)
    broken: int = 0
    denied: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.ids = itertools.count(1)

    def answer(self, verb: str, path: str, query: dict[str, str], body: bytes) -> dict[str, Any]:
        if self.denied:
            raise Refused(403, "Permission 'monitoring.timeSeries.list' denied")
        if self.broken:
            self.broken -= 1
            raise Refused(503, "try again")
        if path == "/v1/projects/my-project/location/global/prometheus/api/v1/query":
            (expression,) = parse_qs(body.decode(), strict_parsing=True)["query"]
            return self.evaluate(expression)
        matched = re.fullmatch(
            r"/(v1|v3)/projects/(?:my-project|4711)/(alertPolicies|dashboards)(?:/([\w-]+))?", path
        )
        if matched is None or matched[1] != ("v3" if matched[2] == "alertPolicies" else "v1"):
            raise Refused(404, f"no such method: {verb} {path}")
        if verb != "GET":
            self.changes.append((verb, path))
        kept = self.policies if matched[2] == "alertPolicies" else self.dashboards
        return self.serve(verb, matched[2], kept, matched[3], query, json.loads(body or b"{}"))

    def serve(
        self,
        verb: str,
        kind: str,
        kept: dict[str, Any],
        key: str | None,
        query: dict[str, str],
        body: dict[str, Any],
    ) -> dict[str, Any]:
        if verb == "GET" and key is None:
            start = int(query.get("pageToken", "0"))
            page = list(kept.values())[start : start + PAGE]
            more = {"nextPageToken": str(start + PAGE)} if len(kept) > start + PAGE else {}
            return {kind: page, **more} if page else more
        if verb == "POST" and key is None:
            key = str(next(self.ids))
            if body.get("name"):
                raise Refused(400, "name is the server's")
        elif key is None or key not in kept:
            raise Refused(404, f"{kind}/{key} is not found")
        if verb == "GET":
            return dict(kept[key])
        if verb == "DELETE":
            del kept[key]
            return {}
        if verb not in ("POST", "PATCH"):
            raise Refused(404, verb)
        if kind == "alertPolicies":
            kept[key] = self.policy(
                body, key, set(filter(None, query.get("updateMask", "").split(",")))
            )
        else:
            kept[key] = self.dashboard(body, key, kept.get(key))
        return dict(kept[key])

    def policy(self, body: dict[str, Any], key: str, mask: set[str]) -> dict[str, Any]:
        message = monitoring_v3.AlertPolicy.pb(monitoring_v3.AlertPolicy())
        json_format.ParseDict(body, message)
        if unknown := mask - {each.name for each in message.DESCRIPTOR.fields}:
            raise Refused(400, f"updateMask has {unknown}")
        if not message.display_name or not message.conditions or not message.combiner:
            raise Refused(400, "displayName, conditions and combiner are required")
        for label, value in message.user_labels.items():
            if not _LABEL.fullmatch(label) or not _LABEL.fullmatch(value):
                raise Refused(400, f"user label {label}={value}")
        for number, condition in enumerate(message.conditions):
            asked = condition.condition_prometheus_query_language
            if not asked.query or not condition.display_name:
                raise Refused(400, "query and displayName are required")
            if asked.evaluation_interval.seconds <= 0 or asked.evaluation_interval.seconds % 30:
                raise Refused(400, "evaluationInterval is a multiple of 30 seconds")
            if not re.fullmatch(r"[a-zA-Z_]\w*", asked.alert_rule):
                raise Refused(400, f"alertRule {asked.alert_rule!r}")
            known = f"projects/my-project/alertPolicies/{key}/conditions/{number}"
            if condition.name not in ("", known):
                raise Refused(400, f"no condition {condition.name}")
            condition.name = known
        message.name = f"projects/my-project/alertPolicies/{key}"
        message.mutation_record.mutated_by = "somebody@example.com"
        shown: dict[str, Any] = json_format.MessageToDict(message)
        return {**shown, "fieldOfTomorrow": 1}

    def dashboard(self, body: dict[str, Any], key: str, old: Any) -> dict[str, Any]:
        try:
            Dashboard.model_validate(body)
        except ValidationError as error:
            raise Refused(400, f"Invalid JSON payload: {error}") from None
        if old is not None and body.get("etag") != old["etag"]:
            raise Refused(409, "the etag is not that of the dashboard as it is")
        number = int(old["etag"]) + 1 if old is not None else 1
        shown = without_zeros(body)
        return {**shown, "name": f"projects/4711/dashboards/{key}", "etag": str(number)}

    def evaluate(self, expression: str) -> dict[str, Any]:
        self.asked.append(expression)
        found = re.search(r'deployed_model_id="(\w+)"', expression)
        figures = self.figures.get(found[1] if found else "", Figures())
        value = figures.requests
        if "histogram_quantile(0.95" in expression:
            value = figures.p95_ms
        elif 'response_code=~"5.."' in expression:
            value = figures.errors
        series = [] if value is None else [{"metric": {}, "value": [0, str(value)]}]
        return {"status": "success", "data": {"resultType": "vector", "result": series}}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are written apart
    cloud: MonitoringEmulator

    def log_message(self, *_: Any) -> None:
        pass

    def _any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with self.cloud.lock:
            try:
                if unknown := set(query) - {"pageSize", "pageToken", "updateMask"}:
                    raise Refused(400, f"unknown parameters {unknown}")
                code, answer = 200, self.cloud.answer(self.command, parts.path, query, body)
            except Refused as refused:
                code, answer = refused.code, {"error": {"message": refused.message}}
            except json_format.ParseError as error:
                code, answer = 400, {"error": {"message": f"Invalid JSON payload: {error}"}}
        content = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PATCH = do_DELETE = _any  # noqa: N815


def without_zeros(value: Any) -> Any:
    if isinstance(value, dict):
        found = {name: without_zeros(each) for name, each in value.items()}
        return {name: each for name, each in found.items() if each not in (0, "", {}, [])}
    return [without_zeros(each) for each in value] if isinstance(value, list) else value


MonitoringEmulator.handler = _Handler
