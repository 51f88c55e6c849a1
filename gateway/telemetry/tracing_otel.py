"""Traces with OpenTelemetry: a server span per request to the API, and below it one for the wait
for admission and one per attempt to have a model answer.

Names are those of the semantic conventions for HTTP and for generative AI
(https://opentelemetry.io/docs/specs/semconv/); what they have no name for begins with
``gateway.``. Spans hold no prompt, no answer, no header, no query and no key but its public id.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client.core import CounterMetricFamily, Metric

from gateway import __version__
from gateway.control.gate import Work
from gateway.http.exchange import Exchange
from gateway.settings_telemetry import TelemetrySettings
from gateway.telemetry.otlp_headers import read_headers
from gateway.telemetry.tracing import CURRENT, TRACE_HEADERS
from gateway.telemetry.tracing_export import CountingExporter
from gateway.telemetry.tracing_spans import RequestSpan, WorkSpan, end_badly

EXPORT_TIMEOUT_S = 10.0  # OpenTelemetry's default
# How long the end of the process waits for the last spans to be delivered.
CLOSE_S = 3.0

_PROPAGATOR = TraceContextTextMapPropagator()


class Tracing:
    """One per server. Spans are made on the event loop and delivered by a thread.

    Attributes:
        before, after: guards of the gate, the first and the last: the time between them is the
            wait for admission, and what the last one holds is the generation.
    """

    def __init__(self, exporter: SpanExporter, *, service: str, ratio: float) -> None:
        self._exporter = CountingExporter(exporter)
        self._processor = BatchSpanProcessor(self._exporter)
        resource = Resource.create({SERVICE_NAME: service, SERVICE_VERSION: __version__})
        provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(ratio)), resource=resource, shutdown_on_exit=False
        )
        provider.add_span_processor(self._processor)
        self._tracer = provider.get_tracer("llm-gateway", __version__)
        self.before = WaitGuard(self._tracer)
        self.after = GenerationGuard(self._tracer, self.before)

    def begin(self, exchange: Exchange) -> RequestSpan:
        """The span of a request, from now on the current one. Its caller's span is its parent."""
        carrier = carrier_of(exchange.headers)
        parent = _PROPAGATOR.extract(carrier) if carrier else None
        found = RequestSpan(self._tracer, exchange, parent)
        CURRENT.set(found)
        return found

    def collect(self) -> Iterator[Metric]:
        """For /metrics."""
        spans = CounterMetricFamily(
            "gateway_trace_spans", "Spans handed to the collector.", labels=["outcome"]
        )
        spans.add_metric(["delivered"], self._exporter.delivered)
        spans.add_metric(["failed"], self._exporter.failed)
        yield spans

    async def close(self) -> None:
        """Deliver what is pending, for a bounded time."""
        worker = threading.Thread(target=self._processor.shutdown, daemon=True)
        worker.start()
        await asyncio.to_thread(worker.join, CLOSE_S)
        if worker.is_alive():
            self._exporter.shutdown()  # ends its retries


class WaitGuard:
    """Held from before the first of the other guards."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._waiting: dict[Work, Span] = {}

    @asynccontextmanager
    async def hold(self, work: Work) -> AsyncIterator[None]:
        """Its span ends where the last guard is reached, or with the refusal."""
        parent = CURRENT.get()
        if isinstance(parent, RequestSpan):
            parent.note_work(work)
            context = set_span_in_context(parent.span)
            self._waiting[work] = self._tracer.start_span("admission", context)
        try:
            yield
        except BaseException as error:
            if (span := self._waiting.get(work)) is not None:
                end_badly(span, error)
            raise
        finally:
            self.admitted(work)

    def admitted(self, work: Work) -> None:
        """The wait is over."""
        if (span := self._waiting.pop(work, None)) is not None:
            span.end()


class GenerationGuard:
    """Held within all others."""

    def __init__(self, tracer: Tracer, wait: WaitGuard) -> None:
        self._tracer = tracer
        self._wait = wait

    @asynccontextmanager
    async def hold(self, work: Work) -> AsyncIterator[None]:
        """Its span is the current one meanwhile, so that other servers continue it."""
        self._wait.admitted(work)
        outer = CURRENT.get()
        current = WorkSpan(self._tracer, work, outer if isinstance(outer, RequestSpan) else None)
        CURRENT.set(current)
        try:
            yield
        except BaseException as error:
            end_badly(current.span, error)
            raise
        finally:
            CURRENT.set(outer)
            current.end()


def carrier_of(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    """The request's W3C Trace Context as text."""
    return {
        name.decode(): value.decode("latin-1")
        for name in TRACE_HEADERS
        if (value := headers.get(name)) is not None
    }


def build_tracing(settings: TelemetrySettings, url: str) -> Tracing:
    """Traces that go to the collector at ``url``."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    # It writes addresses and texts of exceptions; the exporter here says what matters.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    given = settings.otel_exporter_otlp_headers
    headers: dict[str, Any] = read_headers(given.get_secret_value()) if given is not None else {}
    exporter = OTLPSpanExporter(endpoint=url, headers=headers, timeout=EXPORT_TIMEOUT_S)
    return Tracing(
        exporter, service=settings.otel_service_name, ratio=settings.otel_traces_sampler_arg
    )
