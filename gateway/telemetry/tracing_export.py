"""Counts what is delivered to the collector, and says once when that begins or ceases to fail."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = logging.getLogger("gateway.tracing")


class CountingExporter(SpanExporter):
    """Called by the delivering thread alone.

    Attributes:
        delivered, failed: spans; failed ones are given up.
    """

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._failing = False
        self.delivered = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deliver; an exporter that raises has failed."""
        try:
            result = self._inner.export(spans)
        except Exception as error:
            log.debug("the exporter of traces failed", exc_info=error)
            result = SpanExportResult.FAILURE
        failing = result is not SpanExportResult.SUCCESS
        if failing:
            self.failed += len(spans)
        else:
            self.delivered += len(spans)
        if failing is not self._failing:
            self._failing = failing
            if failing:
                log.warning("traces cannot be delivered: the collector does not take them")
            else:
                log.info("traces are delivered again")
        return result

    def shutdown(self) -> None:
        """End, retries included."""
        self._inner.shutdown()
