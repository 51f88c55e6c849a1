"""A real Prometheus for tests: ``with Prometheus(tmp_path / "prometheus", config) as p: ...``."""

from __future__ import annotations

import pytest

from benchmarks.autoscaling.prometheus import Prometheus, PrometheusError, Sample, program

__all__ = ["Prometheus", "PrometheusError", "Sample", "needs_prometheus"]

needs_prometheus = pytest.mark.skipif(
    program() is None, reason="there is no prometheus on this machine (Debian: prometheus)"
)
