"""Every query that is shipped gets an answer from a real Prometheus that watches real gateways."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator

import pytest
from alert_cases import Series, rules, used_series
from grafana_dashboard import DASHBOARD, queries
from prometheus_process import needs_prometheus
from watched_gateways import Watched

PATIENCE_S = 120.0
# Only while a gateway shuts down.
DEADLINE = "gateway_drain_deadline_timestamp_seconds"

pytestmark = needs_prometheus


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Gateways to which a lot has happened, and goes on to happen in the tests."""
    running = Watched(tmp_path_factory.mktemp("watched"))
    try:
        running.run_a_batch()
        running.queue_up()
        yield running
    finally:
        running.close()


def live_until(watched: Watched, done: Callable[[], object]) -> None:
    """Go on asking until it is so, or patience ends: rates need two scrapes with requests
    between them."""
    until = time.monotonic() + PATIENCE_S
    while not done() and time.monotonic() < until:
        watched.live_a_little()


def without_data(watched: Watched, asked: dict[str, str]) -> dict[str, str]:
    """Those queries, by a name, to which there is no number yet."""
    return {
        name: query
        for name, query in asked.items()
        if not any(math.isfinite(one.value) for one in watched.prometheus.query(query))
    }


def all_have_data(watched: Watched, asked: dict[str, str]) -> None:
    left = asked

    def none_left() -> bool:
        nonlocal left
        left = without_data(watched, left)
        return not left

    live_until(watched, none_left)
    assert not left


def test_every_query_of_the_dashboard_has_data(watched: Watched) -> None:
    found = list(queries())
    assert len(found) > 100
    asked = {f"{title}: {query}": query for title, query in found}
    assert not [query for query in asked.values() if "$" in query]
    all_have_data(watched, asked)


def test_every_recorded_series_has_data(watched: Watched) -> None:
    all_have_data(watched, {rule["record"]: rule["record"] for rule in rules("record")})


def test_the_variables_of_the_dashboard_have_values(watched: Watched) -> None:
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] != "query":
            continue
        series, label = variable["definition"].removeprefix("label_values(")[:-1].rsplit(", ", 1)
        found = watched.prometheus.query(series.replace("$job", "gateway"))
        values = {one.labels[label] for one in found}
        assert values, variable["name"]
        if variable["name"] == "model":
            assert {"own", "slow", "gone", "near", "tiny-chat"} <= values
        elif variable["name"] == "instance":
            assert len(values) == 2


def test_alerts_are_tested_with_series_as_they_are(watched: Watched) -> None:
    """promtool would take any labels; these are those that gateways have."""
    used = {one for one in used_series() if one.metric != DEADLINE}
    assert len(used) > 25

    def missing() -> set[Series]:
        return used - exported(watched, {one.metric for one in used})

    live_until(watched, lambda: not missing())
    assert not missing()


def exported(watched: Watched, metrics: set[str]) -> set[Series]:
    """Series as Prometheus has them."""
    found = set()
    for metric in metrics:
        for labels in watched.prometheus.api("series", **{"match[]": metric}):
            found.add(Series(metric, frozenset(labels) - {"__name__"}))
    return found


def test_what_happens_is_alerted(watched: Watched) -> None:
    """Those that need no time fire; the others wait for theirs, or have waited."""
    prometheus = watched.prometheus
    failed = 'gateway_config_reloads_total{outcome="failed"}'
    # A rise is seen of what was scraped before it.
    prometheus.wait_for(lambda: len(prometheus.query(failed)) == 2, "both gateways to be seen")
    watched.spoil_the_configuration()
    at_once = {"GatewayReloadFails", "GatewayDegraded"}
    in_time = {"GatewayDown", "GatewayRedisAway", "GatewayUsageDatabaseAway", "GatewayEngineDown"}
    in_time |= {"GatewayModelUnserved"}

    def missing() -> set[str]:
        found = prometheus.query("ALERTS")
        firing = {one.labels["alertname"] for one in found if one.labels["alertstate"] == "firing"}
        return (at_once - firing) | (in_time - {one.labels["alertname"] for one in found})

    live_until(watched, lambda: not missing())
    assert not missing()
    (alert,) = prometheus.query('ALERTS{alertname="GatewayEngineDown"}')
    assert alert.labels["model_name"] == "frail"
    assert prometheus.query('ALERTS{alertname="GatewayModelUnserved", model_name="frail"}')
    (alert,) = prometheus.query('ALERTS{alertname="GatewayReloadFails"}')
    assert alert.labels["instance"] == f"127.0.0.1:{watched.front.port}"


def test_answers_costs_and_sources_are_true(watched: Watched) -> None:
    watched.live_a_little()
    seen = watched.samples()
    assert seen.total("gateway_http_responses_total") == seen.total("gateway_requests_total") > 0
    for status in ("401", "403", "429"):
        refused = seen.total("gateway_key_refusals_total", status=status)
        assert refused == seen.total("gateway_http_responses_total", status=status) > 0
    front = watched.front
    front.wait_for(lambda: costs_are_true(watched), "costs by the prices of 1 and 2 dollars")

    def refused() -> set[tuple[int, str]]:
        lines = [line for line in front.log_lines() if line.get("status") in (401, 403)]
        return {(line["status"], line["source"]) for line in lines}

    wanted = {(401, "127.0.0.1"), (403, "127.0.0.1")}
    front.wait_for(lambda: refused() == wanted, "the lines of what was refused")


def costs_are_true(watched: Watched) -> bool:
    """Once nothing is under way: what is counted as it is made is charged at the end."""
    seen = watched.samples()
    prompt = seen.total("vllm:prompt_tokens_total", model_name="own")
    made = seen.total("vllm:generation_tokens_total", model_name="own")
    cost = seen.total("gateway_usage_usd_total", model_name="own")
    return cost > 0 and math.isclose(cost, (prompt + 2 * made) / 1e6)


def test_a_shutdown_can_be_watched(watched: Watched) -> None:
    """The last one: the gateway waits for the stream that takes an hour."""
    watched.front.signal(signal.SIGTERM)
    prometheus = watched.prometheus
    prometheus.wait_for(lambda: bool(prometheus.query(DEADLINE)), "the drain to be seen")
    (deadline,) = prometheus.query(DEADLINE)
    assert set(deadline.labels) == {"__name__", "job", "instance"}
    (left,) = prometheus.query(f"{DEADLINE} - time()")
    assert 0 < left.value <= 600
    (draining,) = prometheus.query("gateway_draining == 1")
    assert draining.labels["instance"] == deadline.labels["instance"]
