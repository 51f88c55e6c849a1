"""Traces as a collector gets them, from a server that is asked as clients ask."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from planted import SECRETS
from traced_server import Traced

from gateway.http.exchange import Exchange
from gateway.settings import SettingsError, load_settings
from gateway.telemetry import tracing_otel
from gateway.telemetry.otlp_headers import read_headers
from gateway.telemetry.tracing import CURRENT, trace_headers
from gateway.telemetry.tracing_otel import Tracing

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
INTERNAL, SERVER, CLIENT = 1, 2, 3
ERROR = 2


def ask(traced: Traced, model: str, path: str = "/v1/chat/completions", **more: Any) -> Any:
    """The reply, and the server span that tells of it."""
    headers = more.pop("headers", {})
    prompt = {"messages": [{"role": "user", "content": SECRETS["prompt"]}]}
    if path == "/v1/completions":
        prompt = {"prompt": SECRETS["prompt"]}  # type: ignore[dict-item]
    reply: httpx.Response = traced.http.post(
        path, json={"model": model, **prompt, **more}, headers=headers
    )
    return reply, traced.collector.of_request(reply.headers["x-request-id"])


def test_a_streamed_chat_is_told_by_the_conventions(traced: Traced) -> None:
    parent = {"traceparent": f"00-{CALLER[0]}-{CALLER[1]}-01", "tracestate": "vendor=1"}
    reply, span = ask(traced, "own", stream=True, max_tokens=500, headers=parent)
    assert reply.status_code == 200
    assert (span.trace_id, span.parent_id) == CALLER
    assert (span.name, span.kind) == ("POST /v1/chat/completions", SERVER)
    assert span.service == "traced-gateway"
    told = span.attributes
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "fake",
        "gen_ai.request.model": "own",
        "gen_ai.request.max_tokens": 500,
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "own",
        "gen_ai.response.finish_reasons": ["stop"],
        "gateway.outcome": "completed",
        "gateway.target": reply.headers["x-gateway-target"],
        "gateway.route_reason": reply.headers["x-gateway-route"],
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": traced.server.port,
    }
    assert {name: told.get(name) for name in expected} == expected
    assert told["gen_ai.usage.input_tokens"] > 0
    assert told["gen_ai.usage.output_tokens"] > 0
    assert told["gen_ai.response.id"] in reply.text
    assert span.start_ns < span.events["first token"] <= span.end_ns
    below = traced.collector.children(span)
    assert set(below) == {"admission", "chat own"}
    assert below["chat own"].kind == INTERNAL
    assert below["admission"].end_ns <= below["chat own"].start_ns
    assert "gen_ai.usage.output_tokens" not in below["chat own"].attributes


def test_a_completion_has_an_operation_of_its_own(traced: Traced) -> None:
    _, span = ask(traced, "own", path="/v1/completions", max_tokens=3, n=2)
    assert span.attributes["gen_ai.operation.name"] == "text_completion"
    assert span.attributes["gen_ai.response.finish_reasons"] == ["length", "length"]
    assert span.attributes["gen_ai.request.choice.count"] == 2
    assert "text_completion own" in traced.collector.children(span)


def test_another_server_continues_the_trace(traced: Traced) -> None:
    parent = {"traceparent": f"00-{CALLER[0]}-{CALLER[1]}-01"}
    reply, span = ask(traced, "far", stream=True, headers=parent)
    assert reply.status_code == 200
    attempt = traced.collector.children(span)["chat far"]
    seen = traced.upstream.requests("ok")[-1].headers
    assert seen["traceparent"] == f"00-{CALLER[0]}-{attempt.span_id}-01"
    assert attempt.kind == CLIENT
    assert attempt.attributes["server.address"] == "127.0.0.1"
    assert attempt.attributes["server.port"] == traced.upstream.port
    assert attempt.attributes["gen_ai.provider.name"] == "vllm"
    assert span.attributes["gen_ai.provider.name"] == "vllm"
    assert span.attributes["gateway.target"] == "there/0"
    assert span.attributes["gen_ai.response.finish_reasons"] == ["stop"]


def test_what_outlives_its_request_counts_its_own_tokens(traced: Traced) -> None:
    body = {"model": "own", "input": SECRETS["prompt"], "background": True}
    reply = traced.http.post("/v1/responses", json=body)
    span = traced.collector.of_request(reply.headers["x-request-id"])
    work = traced.collector.wait_for(lambda s: s.parent_id == span.span_id and s.name == "chat own")
    assert work[0].attributes["gen_ai.usage.output_tokens"] > 0
    assert work[0].attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert "gen_ai.usage.output_tokens" not in span.attributes


def test_a_line_of_a_batch_is_a_trace_of_its_own(traced: Traced) -> None:
    line = {
        "custom_id": "1",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"model": "own", "prompt": SECRETS["prompt"]},
    }
    files = {"file": ("in.jsonl", json.dumps(line).encode())}
    file = traced.http.post("/v1/files", files=files, data={"purpose": "batch"}).json()["id"]
    body = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
    assert traced.http.post("/v1/batches", json=body).status_code == 200
    work = traced.collector.wait_for(
        lambda s: s.name == "text_completion own" and "gateway.key" in s.attributes
    )
    assert work[0].parent_id == ""
    assert work[0].attributes["gen_ai.usage.input_tokens"] > 0


def test_faults_are_told_and_only_the_servers_own_are_errors(traced: Traced) -> None:
    reply, span = ask(traced, "own", max_tokens=-1)
    assert reply.status_code == 400
    assert span.attributes["error.type"] == reply.json()["error"]["code"]
    assert span.attributes["gateway.outcome"] == "rejected"
    assert span.status != ERROR
    reply, span = ask(traced, "broken")
    assert reply.status_code >= 500
    assert span.attributes["error.type"] == reply.json()["error"]["code"]
    assert span.status == ERROR
    assert traced.collector.children(span)["chat broken"].status == ERROR


def test_probes_are_not_traced_and_the_collector_gets_its_headers(traced: Traced) -> None:
    assert traced.http.get("/health/ready").status_code == 200
    _, span = ask(traced, "own")
    assert traced.collector.requests[-1][":path"] == "/v1/traces"
    assert traced.collector.requests[-1]["authorization"] == (
        f"Bearer {SECRETS['collector header']}"
    )
    assert not any("health" in s.attributes.get("http.route", "") for s in traced.collector.spans)
    assert span.attributes["gateway.key"] != SECRETS["api key"]
    assert traced.server.metric('gateway_trace_spans_total{outcome="delivered"}') > 0


def exchange(**headers: str) -> Exchange:
    lines = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": lines}
    return Exchange(scope, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("flags", "count"), [("00", 0), ("01", 1), (None, 0)])
async def test_whoever_asks_decides_whether_a_trace_is_kept(flags: str | None, count: int) -> None:
    kept = InMemorySpanExporter()
    tracing = Tracing(kept, service="s", ratio=0.0)
    given = {} if flags is None else {"traceparent": f"00-{CALLER[0]}-{CALLER[1]}-{flags}"}
    try:
        span = tracing.begin(exchange(**given))
        headers = trace_headers()
        assert headers is not None
        assert int(headers[b"traceparent"][-2:], 16) & 1 == count
        span.end(exchange(**given))
    finally:
        CURRENT.set(None)
        await tracing.close()
    assert len(kept.get_finished_spans()) == count


async def test_a_collector_that_hangs_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hanging(SpanExporter):
        def __init__(self) -> None:
            self.released = threading.Event()

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            assert self.released.wait(60)
            return SpanExportResult.FAILURE

        def shutdown(self) -> None:
            self.released.set()

    monkeypatch.setattr(tracing_otel, "CLOSE_S", 0.05)
    hanging = Hanging()
    tracing = Tracing(hanging, service="s", ratio=1.0)
    tracing.begin(exchange()).end(exchange())
    CURRENT.set(None)
    await tracing.close()
    assert hanging.released.is_set()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("otel_exporter_otlp_endpoint", "collector:4318", "must be a URL"),
        ("otel_exporter_otlp_endpoint", "http://u:hidden@c:4318", "no credentials"),
        ("otel_exporter_otlp_traces_endpoint", "http://c/v1?token=hidden", "no credentials"),
        ("otel_exporter_otlp_protocol", "grpc", "Only http/protobuf"),
        ("otel_exporter_otlp_headers", "a=b,hidden", "entry 2"),
        ("otel_traces_sampler_arg", "1.5", "OTEL_TRACES_SAMPLER_ARG"),
    ],
)
def test_settings_that_cannot_be_used_say_why(name: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        load_settings(**{name: value})
    assert "hidden" not in str(caught.value)


def test_where_traces_go() -> None:
    assert load_settings(otel_exporter_otlp_endpoint="").traces_url is None
    found = load_settings(otel_exporter_otlp_endpoint="http://c:4318/")
    assert found.traces_url == "http://c:4318/v1/traces"
    both = {"otel_exporter_otlp_traces_endpoint": "https://c/x"}
    assert load_settings(otel_exporter_otlp_endpoint="http://c:1", **both).traces_url == (
        "https://c/x"
    )
    assert read_headers("A=b%20c, d=") == {"a": "b c", "d": ""}


def test_without_a_collector_nothing_of_opentelemetry_is_loaded() -> None:
    code = (
        "import sys, gateway.app, gateway.state, gateway.settings as s;"
        "gateway.state.new_state(s.load_settings(data_dir=sys.argv[1]));"
        "print([m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, "/nonexistent"], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"
