"""What a request carries of its trace, where traces are wanted.

OpenTelemetry itself is imported by ``tracing_otel`` alone, and only when traces have somewhere
to go; without them the cost of a request is a look at one context variable.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from gateway.settings_telemetry import TelemetrySettings

if TYPE_CHECKING:
    from gateway.routing.upstream import Upstream
    from gateway.telemetry.tracing_otel import Tracing

TRACE_HEADERS = (b"traceparent", b"tracestate")


class ActiveSpan(Protocol):
    """The span that work is being done for."""

    def headers(self) -> dict[bytes, bytes]:
        """W3C Trace Context for whoever is asked on behalf of the span."""

    def tell_server(self, upstream: Upstream) -> None:
        """Say which other server does the work."""


CURRENT: ContextVar[ActiveSpan | None] = ContextVar("span", default=None)


def trace_headers() -> dict[bytes, bytes] | None:
    """What other servers are told of the trace; None where there is none of our own."""
    span = CURRENT.get()
    return None if span is None else span.headers()


def tell_server(upstream: Upstream) -> None:
    """Say in the current span which other server is asked."""
    if (span := CURRENT.get()) is not None:
        span.tell_server(upstream)


def new_tracing(settings: TelemetrySettings) -> Tracing | None:
    """Running traces, or None where the settings ask for none."""
    if settings.traces_url is None:
        return None
    from gateway.telemetry.tracing_otel import build_tracing

    return build_tracing(settings, settings.traces_url)
