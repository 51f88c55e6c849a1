"""The helper that starts a real Prometheus says what goes wrong, and always ends it."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_process import Prometheus, PrometheusError, needs_prometheus

pytestmark = needs_prometheus


def test_it_answers_queries_and_ends(tmp_path: Path) -> None:
    with Prometheus(tmp_path / "p", "global: {scrape_interval: 100ms}") as prometheus:
        prometheus.wait_ready()
        (sample,) = prometheus.query('label_replace(vector(7), "pod", "a", "", "")')
        assert (sample.value, sample.labels) == (7.0, {"pod": "a"})
        assert prometheus.query("absent_over_time(up[1m]) == 0") == []
        assert prometheus.query("scalar(vector(3))")[0].value == 3
        assert prometheus.scraped() == {}
        with pytest.raises(PrometheusError, match="parse error"):
            prometheus.query("sum(")
        with pytest.raises(PrometheusError, match="no instant vector"):
            prometheus.query("up[1m]")
        prometheus.config.write_text("scrape_configs: none")
        with pytest.raises(PrometheusError, match="unmarshal"):
            prometheus.reload()
        with pytest.raises(PrometheusError, match="waited"):
            prometheus.wait_for(lambda: False, "what never comes", 0.05)
    assert prometheus.process.returncode == 0


def test_a_wrong_configuration_is_told(tmp_path: Path) -> None:
    with (
        pytest.raises(PrometheusError, match="field scrape_intervall not found"),
        Prometheus(tmp_path, "global: {scrape_intervall: 1s}") as prometheus,
    ):
        prometheus.wait_ready()
    assert prometheus.process.returncode
