"""The spans of a request and of the work that it makes for a model."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.control.gate import Work
from gateway.control.pool import RemoteRoute
from gateway.http.exchange import Exchange
from gateway.routing.upstream import Upstream

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
# Fields of the access log and the attributes that they become.
DETAILS = {
    "model": "gen_ai.response.model",
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "stream": "gen_ai.request.stream",
    "target": "gateway.target",
    "route_reason": "gateway.route_reason",
    "attempts": "gateway.attempts",
    "degraded": "gateway.degraded",
    "carried_on": "gateway.carried_on",
    "cache_hit": "gateway.cache_hit",
    "queue_ms": "gateway.engine_queue_ms",
    "admission_ms": "gateway.admission_ms",
}

_PROPAGATOR = TraceContextTextMapPropagator()


class RequestSpan:
    """The server span of one HTTP request."""

    __slots__ = ("_reasons", "operation", "span")

    def __init__(self, tracer: Tracer, exchange: Exchange, parent: Context | None) -> None:
        method = exchange.method if exchange.method in METHODS else "_OTHER"
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "url.scheme": exchange.scope.get("scheme", "http"),
            "gateway.request_id": exchange.request_id,
        }
        if server := exchange.scope.get("server"):
            attributes |= {"server.address": server[0], "server.port": server[1]}
        # Where the request began, since the time to its first token is counted from there.
        begun = time.time_ns() - round((time.perf_counter() - exchange.started) * 1e9)
        self.span = tracer.start_span(method, parent, SpanKind.SERVER, attributes, start_time=begun)
        self.operation = OPERATIONS.get(exchange.path)
        self._reasons: list[str] = []

    @property
    def open(self) -> bool:
        """Whether anything can still be said in it: it is sampled, and the request runs."""
        return self.span.is_recording()

    def headers(self) -> dict[bytes, bytes]:
        """W3C Trace Context for whoever is asked on behalf of the request."""
        return headers_of(self.span)

    def tell_server(self, upstream: Upstream) -> None:
        """The provider alone: the address of a server span is the gateway's own."""
        self.span.set_attribute("gen_ai.provider.name", upstream.spec.kind)

    def note_work(self, work: Work) -> None:
        """What is asked of which model; the last attempt counts."""
        if self.open:
            self.operation = self.operation or operation_of(work, None)
            self.span.set_attributes(asked(work))

    def note_reasons(self, reasons: tuple[str, ...]) -> None:
        """Why choices ended, as far as that is known."""
        self._reasons += reasons

    def end(self, exchange: Exchange) -> None:
        """All that is known of the request by now."""
        span = self.span
        if not self.open:
            return span.end()
        details = exchange.details
        span.update_name(f"{exchange.method} {exchange.route}")
        told = {name: details.get(field) for field, name in DETAILS.items()}
        told |= {
            "http.route": exchange.route,
            "http.response.status_code": exchange.status or None,
            "gateway.outcome": exchange.outcome or "failed",
            "gateway.key": exchange.principal.id,
            "gen_ai.operation.name": self.operation if "model" in details else None,
            "gen_ai.response.finish_reasons": self._reasons or None,
        }
        ttft_ms = details.get("ttft_ms")
        if ttft_ms is not None and isinstance(span, SdkSpan) and span.start_time is not None:
            told["gen_ai.response.time_to_first_chunk"] = ttft_ms / 1000
            span.add_event("first token", timestamp=span.start_time + round(ttft_ms * 1e6))
        span.set_attributes({name: value for name, value in told.items() if value is not None})
        if exchange.status >= 500 or exchange.outcome == "failed":
            span.set_attribute("error.type", exchange.error_code or "internal_error")
            span.set_status(StatusCode.ERROR)
        elif exchange.error_code is not None:
            span.set_attribute("error.type", exchange.error_code)
        span.end()


class WorkSpan:
    """One attempt to have a model answer. Without a request around it, as in a batch, it says
    what otherwise the request's span says."""

    __slots__ = ("_request", "_work", "span")

    def __init__(self, tracer: Tracer, work: Work, request: RequestSpan | None) -> None:
        operation = operation_of(work, request)
        remote = isinstance(work.route, RemoteRoute)
        self.span: Span = tracer.start_span(
            f"{operation} {work.route.model_id}",
            set_span_in_context(request.span) if request is not None else None,
            SpanKind.CLIENT if remote else SpanKind.INTERNAL,
            {"gen_ai.operation.name": operation, **asked(work)},
        )
        self._work = work
        self._request = request if request is not None and request.open else None

    def headers(self) -> dict[bytes, bytes]:
        """W3C Trace Context for the server that does the work."""
        return headers_of(self.span)

    def tell_server(self, upstream: Upstream) -> None:
        """Whoever does the work is not this process."""
        if self.span.is_recording():
            self.span.set_attributes(
                {
                    "gen_ai.provider.name": upstream.spec.kind,
                    "gateway.target": upstream.name,
                    "server.address": upstream.address.server_name,
                    "server.port": upstream.address.port,
                }
            )
        if self._request is not None:
            self._request.tell_server(upstream)

    def end(self) -> None:
        """Tokens are told in one span only, so that nobody adds them up twice."""
        used = self._work.used
        if self._request is not None:
            self._request.note_reasons(used.finish_reasons)
        elif self.span.is_recording():
            self.span.set_attributes(
                {
                    "gen_ai.usage.input_tokens": used.prompt_tokens,
                    "gen_ai.usage.output_tokens": used.completion_tokens,
                    "gen_ai.usage.cache_read.input_tokens": used.cached_tokens,
                    "gen_ai.response.finish_reasons": used.finish_reasons,
                    "gateway.key": self._work.principal.id,
                }
            )
        self.span.end()


def asked(work: Work) -> dict[str, Any]:
    """The request to a model, as attributes."""
    route = work.route
    found: dict[str, Any] = {"gen_ai.request.model": work.model}
    if not isinstance(route, RemoteRoute):
        found["gen_ai.provider.name"] = route.info.engine
        found["gen_ai.response.id"] = work.request_id
        found["gen_ai.response.model"] = route.model_id
        found["gateway.target"] = route.target
    if work.choices and work.is_capped:
        found["gen_ai.request.max_tokens"] = work.max_tokens
    if work.choices > 1:
        found["gen_ai.request.choice.count"] = work.choices
    return found


def operation_of(work: Work, request: RequestSpan | None) -> str:
    """The operation by its name in the semantic conventions."""
    if not work.choices:
        return "embeddings"
    if request is not None and request.operation is not None:
        return request.operation
    return "text_completion" if work.request_id.startswith("cmpl-") else "chat"


def headers_of(span: Span) -> dict[bytes, bytes]:
    """W3C Trace Context with this span as the parent."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(span))
    return {name.encode(): value.encode() for name, value in carrier.items()}


def end_badly(span: Span, error: BaseException) -> None:
    """Note why the work did not come to its end; texts of exceptions stay out."""
    if isinstance(error, GeneratorExit | asyncio.CancelledError):
        span.set_attribute("error.type", "cancelled")
    else:
        span.set_attribute("error.type", type(error).__name__)
        span.set_status(StatusCode.ERROR)
