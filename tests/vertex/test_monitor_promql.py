"""The alerts and the dashboard of ``monitor``: their PromQL, evaluated by a real promtool."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from server_process import ServerProcess
from vertex_specs import changed

from deploy.vertex.alerts import Rule, read_rules, rules_for, seconds
from deploy.vertex.alerts_promql import FROM, TO, NotOnVertex, metrics_in, vertex_expression
from deploy.vertex.dashboard import dashboard_of
from deploy.vertex.monitor import covers
from deploy.vertex.spec import Spec, load_spec

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(
    PROMTOOL is None, reason="promtool is not installed (make services)"
)


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(changed()))
    return load_spec(path)


def test_monitor_leaves_out_what_does_not_leave_the_container(spec: Spec) -> None:
    rules = rules_for(spec)
    kept = {rule.name for rule in rules.rules}
    assert {"GatewayFails", "GatewayFirstTokenSlow", "GatewayQueueGrows"} <= kept
    assert rules.left_out["GatewaySheds"] == "gateway_shed_total"
    source = Path(__file__).parents[2] / "deploy" / "monitoring" / "rules" / "alerts.yaml"
    named = {rule["alert"] for _, rule in read_rules(source)}
    assert kept - {"VertexNoReplica"} | set(rules.left_out) == named


def test_monitor_names_only_metrics_that_the_gateway_has(
    container: ServerProcess, spec: Spec
) -> None:
    present = {name.partition("{")[0] for name in container.metrics()}
    queries = [rule.expression for rule in rules_for(spec).rules]
    for tile in dashboard_of(spec)["mosaicLayout"]["tiles"]:
        sets = tile["widget"]["xyChart"]["dataSets"]
        queries += [each["timeSeriesQuery"]["prometheusQuery"] for each in sets]
    asked = set().union(*map(metrics_in, queries))
    ours = {FROM + name.removeprefix(TO) for name in asked if name.startswith(TO)}
    assert len(ours) > 8
    assert ours <= present
    theirs = {name for name in asked if not name.startswith(TO)}
    assert all(name.startswith("aiplatform_googleapis_com:prediction_online_") for name in theirs)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("vllm:a > 1", 'vertex_vllm_a{endpoint_id="7"} > 1'),
        ("vllm:a{} == 0", 'vertex_vllm_a{endpoint_id="7"} == 0'),
        (
            'sum by (job, le) (rate(vllm:a_bucket{le="0.5"}[5m]))',
            'sum by (endpoint_id, le) (rate(vertex_vllm_a_bucket{endpoint_id="7", le="0.5"}[5m]))',
        ),
        (
            "vllm:a unless on (job, instance) max without(engine) (vllm:b offset 5m) # why\n",
            'vertex_vllm_a{endpoint_id="7"} unless on (endpoint_id, replica_id) max '
            'without(engine) (vertex_vllm_b{endpoint_id="7"} offset 5m)',
        ),
        ("m:recorded > 2 * 1e3", '(sum (vertex_vllm_b{endpoint_id="7"})) > 2 * 1e3'),
        ('vllm:a{x=~"vllm:b|job"} > 1', 'vertex_vllm_a{endpoint_id="7", x=~"vllm:b|job"} > 1'),
    ],
)
def test_monitor_translates(rule: str, expected: str) -> None:
    assert vertex_expression(rule, {"m:recorded": "sum (vllm:b)"}, "7") == expected


def test_monitor_does_not_translate_what_is_not_there() -> None:
    with pytest.raises(NotOnVertex, match="gateway_shed_total"):
        vertex_expression("x:y", {"x:y": "vllm:a and on (job) gateway_shed_total"}, "7")


def test_monitor_reads_durations() -> None:
    assert [seconds(text) for text in ("0s", "30s", "5m", "1h30m", "3d")] == [
        0,
        30,
        300,
        5400,
        259_200,
    ]


def test_monitor_compares_as_servers_answer() -> None:
    wanted = {"a": 0, "b": [{"c": "x", "d": ""}], "e": {"f": False}}
    assert covers({"b": [{"c": "x", "new": 1}], "name": "n"}, wanted)
    assert not covers({"b": [{"c": "x"}, {"c": "y"}]}, wanted)
    assert not covers({"a": 1, "b": [{"c": "x"}]}, wanted)
    assert not covers({"b": "x"}, wanted)


def alerting(rules: list[Rule]) -> dict[str, Any]:
    """A rules file of Prometheus with what Cloud Monitoring is given."""
    shown = [
        {"alert": rule.name, "expr": rule.expression, "for": f"{rule.for_s}s"} for rule in rules
    ]
    return {"groups": [{"name": "all", "rules": shown}]}


def run_promtool(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [str(PROMTOOL), *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_monitor_writes_valid_promql(tmp_path: Path, spec: Spec) -> None:
    rules = list(rules_for(spec).rules)
    for number, tile in enumerate(dashboard_of(spec)["mosaicLayout"]["tiles"]):
        for each in tile["widget"]["xyChart"]["dataSets"]:
            query = each["timeSeriesQuery"]["prometheusQuery"]
            rules.append(Rule("board", f"Tile{number}", query, 0, "info", "", ""))
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(alerting(rules)))
    run_promtool(tmp_path, "check", "rules", "--lint=none", "rules.yaml")


@needs_promtool
def test_monitor_alerts_fire(tmp_path: Path, spec: Spec) -> None:
    """In a real evaluation, for the spec's endpoint and not for its neighbour."""
    rules = [each for each in rules_for(spec).rules if not each.name.endswith("Leaks")]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(alerting(rules)))
    mine, other = spec.endpoint_id, "1"
    resource = 'monitored_resource="aiplatform.googleapis.com/Endpoint"'
    count = "aiplatform_googleapis_com:prediction_online_response_count"
    series: list[dict[str, str]] = []
    for endpoint, failures in ((mine, 10), (other, 0)):
        own = f'{resource},endpoint_id="{endpoint}",deployed_model_id="7"'
        for code, step in (("200", 90), ("500", failures)):
            name = f'{count}{{{own},response_code="{code}"}}'
            series.append({"series": name, "values": f"0+{step}x60"})
        replicas = "aiplatform_googleapis_com:prediction_online_replicas"
        series.append({"series": f"{replicas}{{{own}}}", "values": "1x60"})
        kv = 'vertex_vllm_kv_cache_usage_perc{endpoint_id="%s",model_name="m",engine="0"}'
        level = "0.95" if endpoint == mine else "0.5"
        series.append({"series": kv % endpoint, "values": f"{level}x60"})
    case = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "alert_rule_test": [
                    {
                        "eval_time": "30m",
                        "alertname": "GatewayFails",
                        "exp_alerts": [{"exp_labels": {"endpoint_id": mine}}],
                    },
                    {
                        "eval_time": "30m",
                        "alertname": "GatewayKvCacheFull",
                        "exp_alerts": [
                            {"exp_labels": {"endpoint_id": mine, "model_name": "m", "engine": "0"}}
                        ],
                    },
                    {"eval_time": "30m", "alertname": "VertexNoReplica", "exp_alerts": []},
                    {"eval_time": "30m", "alertname": "GatewayQueueGrows", "exp_alerts": []},
                ],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(case))
    run_promtool(tmp_path, "test", "rules", "tests.yaml")
