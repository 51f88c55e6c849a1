"""``monitor``: alert policies and the dashboard, against strict messages and a real promtool."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from monitor_emulator import MonitoringEmulator
from typer.testing import CliRunner
from vertex_specs import changed

from deploy.vertex.alerts import rules_for
from deploy.vertex.spec import Spec, load_spec
from gateway.cli import app

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (make services)"
)
CHANNEL = "projects/my-project/notificationChannels/1234"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[MonitoringEmulator]:
    with MonitoringEmulator() as running:
        monkeypatch.setenv("MONITORING_API_ENDPOINT", running.url)
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(changed()))
    return path


@pytest.fixture
def spec(file: Path) -> Spec:
    return load_spec(file)


def monitor(file: Path, *options: str, code: int = 0) -> Any:
    """The command's JSON, or its last line of standard error."""
    done = CliRunner().invoke(
        app, ["deploy", "vertex", "monitor", str(file), "--yes", "--json", *options]
    )
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else done.stderr.splitlines()[-1]


def test_monitor_twice_changes_nothing(cloud: MonitoringEmulator, file: Path, spec: Spec) -> None:
    first = monitor(file)
    rules = rules_for(spec)
    assert {each["action"] for each in first["changes"]} == {"create"}
    assert len(cloud.policies) == len(rules.rules)
    assert len(cloud.dashboards) == 1
    sent = list(cloud.changes)
    second = monitor(file)
    assert second["changes"] == []
    assert second["unchanged"] == len(rules.rules) + 1
    assert cloud.changes == sent


def test_monitor_makes_policies_in_promql(cloud: MonitoringEmulator, file: Path) -> None:
    monitor(file, "--channel", CHANNEL)
    by_alert = {each["userLabels"]["alert"]: each for each in cloud.policies.values()}
    policy = by_alert["gatewaykvcachefull"]
    (condition,) = policy["conditions"]
    asked = condition["conditionPrometheusQueryLanguage"]
    endpoint = load_spec(file).endpoint_id
    assert asked["query"] == (
        f'avg_over_time(vertex_vllm_kv_cache_usage_perc{{endpoint_id="{endpoint}"}}[5m]) > 0.9'
    )
    assert (asked["duration"], asked["evaluationInterval"]) == ("600s", "60s")
    assert (asked["ruleGroup"], asked["alertRule"]) == ("llm-gateway-load", "GatewayKvCacheFull")
    assert policy["severity"] == "WARNING"
    assert policy["notificationChannels"] == [CHANNEL]
    assert "docs/runbook.md#gatewaykvcachefull" in policy["documentation"]["content"]
    assert by_alert["gatewayfails"]["severity"] == "CRITICAL"


def test_monitor_leaves_what_people_set(cloud: MonitoringEmulator, file: Path) -> None:
    monitor(file)
    key = next(iter(cloud.policies))
    cloud.policies[key]["enabled"] = False
    cloud.policies[key]["notificationChannels"] = [CHANNEL]
    cloud.policies["foreign"] = {"name": "projects/my-project/alertPolicies/foreign"}
    assert monitor(file)["changes"] == []
    cloud.policies[key]["severity"] = "ERROR"
    (change,) = monitor(file)["changes"]
    assert change["action"] == "update"
    assert cloud.policies[key]["notificationChannels"] == [CHANNEL]
    assert not cloud.policies[key].get("enabled")
    assert "foreign" in cloud.policies


def test_monitor_repairs_what_differs(cloud: MonitoringEmulator, file: Path) -> None:
    monitor(file)
    one, two, three = list(cloud.policies)[:3]
    query = cloud.policies[one]["conditions"][0]["conditionPrometheusQueryLanguage"]
    right, query["query"] = query["query"], "up == 0"
    del cloud.policies[two]
    twin = json.loads(json.dumps(cloud.policies[three]))
    cloud.policies["99"] = twin | {"name": "projects/my-project/alertPolicies/99"}
    old = json.loads(json.dumps(twin))
    old["userLabels"]["alert"] = "gatewayofyesterday"
    cloud.policies["98"] = old | {"name": "projects/my-project/alertPolicies/98"}
    (board,) = cloud.dashboards.values()
    board["mosaicLayout"]["tiles"].pop()
    actions = [each["action"] for each in monitor(file)["changes"]]
    assert sorted(actions) == ["create", "delete", "delete", "update", "update"]
    condition = cloud.policies[one]["conditions"][0]
    assert condition["conditionPrometheusQueryLanguage"]["query"] == right
    assert condition["name"].endswith("/conditions/0")
    assert {"98", "99"}.isdisjoint(cloud.policies)
    assert monitor(file)["changes"] == []


def test_monitor_plan_changes_nothing(cloud: MonitoringEmulator, file: Path) -> None:
    planned = monitor(file, "--plan")
    assert not planned["done"]
    assert cloud.changes == []
    assert len(planned["changes"]) > 10
    shown = CliRunner().invoke(app, ["deploy", "vertex", "monitor", str(file), "--plan"])
    assert "conditionPrometheusQueryLanguage" in shown.stdout
    assert "create dashboard llm-gateway: chat" in shown.stdout
    assert cloud.changes == []


def test_monitor_removes_all_that_it_made(cloud: MonitoringEmulator, file: Path) -> None:
    monitor(file)
    cloud.policies["foreign"] = {"name": "x", "userLabels": {"managed-by": "llm-gateway"}}
    monitor(file, "--remove")
    assert list(cloud.policies) == ["foreign"]
    assert cloud.dashboards == {}
    assert monitor(file, "--remove")["changes"] == []


def test_monitor_goes_on_after_a_failure(cloud: MonitoringEmulator, file: Path) -> None:
    cloud.broken = 1  # a GET is simply repeated
    assert len(monitor(file, "--plan")["changes"]) > 10
    refused = cloud.serve
    served: list[str] = []

    def once(verb: str, *rest: Any) -> Any:
        served.append(verb)
        if served.count("POST") == 3:
            cloud.broken = 1
        return refused(verb, *rest)

    cloud.serve = once  # type: ignore[method-assign]
    assert "refused POST" in monitor(file, code=1)
    cloud.serve = refused  # type: ignore[method-assign]
    assert len(cloud.policies) == 3
    monitor(file)
    assert monitor(file)["changes"] == []
    assert len({each["userLabels"]["alert"] for each in cloud.policies.values()}) == len(
        cloud.policies
    )


def test_monitor_says_what_is_wrong(cloud: MonitoringEmulator, file: Path) -> None:
    assert "no notification channel" in monitor(file, "--channel", "pager", code=1)
    cloud.answer = lambda *_: ["no object"]  # type: ignore[assignment, method-assign, return-value]
    assert "no JSON object" in monitor(file, code=1)
    del cloud.answer  # type: ignore[method-assign]
    cloud.denied = True
    assert "needs roles/monitoring.editor" in monitor(file, code=1)


def test_monitor_asks_first(cloud: MonitoringEmulator, file: Path) -> None:
    done = CliRunner().invoke(app, ["deploy", "vertex", "monitor", str(file)])
    assert done.exit_code == 1
    assert "add --yes" in done.stderr
    assert cloud.changes == []
