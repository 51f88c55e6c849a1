"""An OTLP/HTTP collector: takes spans over HTTP, decodes and keeps them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from server_process import PATIENCE_S


@dataclass
class Received:
    """One span as it arrived."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    status: int
    attributes: dict[str, Any]
    events: dict[str, int]
    service: str


@dataclass
class OtlpCollector:
    """Runs in a thread of its own, on a free port."""

    spans: list[Received] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                outer.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                reply = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *args: Any) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.requests.append({":path": path, **headers})
        self.raw.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = attributes_of(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self.spans += [received(span, service) for span in scope.spans]

    def wait_for(self, wanted: Callable[[Received], bool], count: int = 1) -> list[Received]:
        """The spans that are wanted, once there are so many."""
        limit = time.monotonic() + PATIENCE_S
        while len(found := [span for span in list(self.spans) if wanted(span)]) < count:
            assert time.monotonic() < limit, self.spans
            time.sleep(0.01)
        return found

    def of_request(self, request_id: str) -> Received:
        """The server span of a request; those below it have arrived as well."""
        return self.wait_for(lambda s: s.attributes.get("gateway.request_id") == request_id)[0]

    def children(self, span: Received) -> dict[str, Received]:
        """Spans right below one that has arrived, by name; they ended before it."""
        return {s.name: s for s in self.spans if s.parent_id == span.span_id}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def received(span: Any, service: str) -> Received:
    return Received(
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        status=span.status.code,
        attributes=attributes_of(span.attributes),
        events={event.name: event.time_unix_nano for event in span.events},
        service=service,
    )


def attributes_of(pairs: Any) -> dict[str, Any]:
    return {pair.key: value_of(pair.value) for pair in pairs}


def value_of(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    return getattr(value, kind)
