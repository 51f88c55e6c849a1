"""The queries of KEDA and prometheus-adapter in Prometheus' own tool: they parse, and they answer
what the autoscaler is to see."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from k8s_manifests import K8S, Manifests, rendered
from k8s_mutations import TWO_LAYERS
from k8s_scaling import adapter_names

PROMTOOL = shutil.which("promtool")
pytestmark = [
    pytest.mark.skipif(PROMTOOL is None, reason="no promtool (Debian's package prometheus)"),
]

OURS = 'namespace="llm-gateway",model_name="chat"'
GAUGES = (
    "vllm:num_requests_waiting",
    "vllm:num_requests_running",
    "vllm:kv_cache_usage_perc",
    "gateway_requests_in_flight",
)


def answers(folder: Path, query: str, series: dict[str, str], wanted: Any) -> None:
    """The query's value after five minutes of these series, one sample every 15 s."""
    test = {
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": k, "values": v} for k, v in series.items()],
                "promql_expr_test": [{"expr": query, "eval_time": "5m", "exp_samples": wanted}],
            }
        ],
    }
    file = folder / "test.yaml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", str(file)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def query_of(manifests: Manifests, position: int = 0) -> str:
    return str(manifests.of("ScaledObject")[0]["spec"]["triggers"][position]["metadata"]["query"])


@pytest.mark.parametrize(
    ("series", "value"),
    [
        # No engine has ever been there: no series of targets.
        ({f'gateway_queue_depth{{{OURS},class="default"}}': "3x20"}, 3),
        # Two gateways, their queues, and what an engine works on.
        (
            {
                f'gateway_queue_depth{{{OURS},class="default",pod="a"}}': "3x20",
                f'gateway_queue_depth{{{OURS},class="batch",pod="b"}}': "4x20",
                f'gateway_target_requests_outstanding{{{OURS},target="gpu/1",pod="b"}}': "10x20",
            },
            17,
        ),
        # What the small model answers is demand: 1 each 15 s, over two minutes.
        (
            {
                f'gateway_queue_depth{{{OURS},class="default"}}': "0x20",
                f"gateway_degraded_requests_total{{{OURS}}}": "0+1x20",
            },
            8,
        ),
        # Nobody wants anything: zero, which lets the last engine go.
        (
            {
                f'gateway_queue_depth{{{OURS},class="default"}}': "0x20",
                f"gateway_degraded_requests_total{{{OURS}}}": "7x20",
            },
            0,
        ),
        # Another namespace's and another model's.
        (
            {
                f'gateway_queue_depth{{{OURS},class="default"}}': "1x20",
                'gateway_queue_depth{namespace="x",model_name="chat",class="default"}': "9x20",
                'gateway_queue_depth{namespace="llm-gateway",model_name="small"}': "9x20",
            },
            1,
        ),
    ],
)
def test_what_wakes_and_scales_engines(tmp_path: Path, series: dict[str, str], value: int) -> None:
    query = query_of(rendered(TWO_LAYERS))
    answers(tmp_path, query, series, [{"labels": "{}", "value": value}])


def test_without_gateways_there_is_no_answer_instead_of_zero(tmp_path: Path) -> None:
    answers(tmp_path, query_of(rendered(TWO_LAYERS)), {"up": "0x20"}, [])


def test_the_triggers_of_a_single_layer(tmp_path: Path) -> None:
    manifests = rendered("gpu-vllm")
    series = {
        f'{name}{{namespace="llm-gateway",pod="{pod}",engine="{engine}"}}': f"{value}x20"
        for name in GAUGES
        for pod, engine, value in (("a", 0, 0.5), ("a", 1, 0.25), ("b", 0, 0.125))
    }
    for position, value in enumerate((0.875, 0.875, 0.625)):
        wanted = [{"labels": "{}", "value": value}]
        answers(tmp_path, query_of(manifests, position), series, wanted)


@pytest.mark.parametrize("metric", GAUGES)
def test_what_the_adapter_asks(tmp_path: Path, metric: str) -> None:
    manifests = Manifests(
        list(yaml.safe_load_all((K8S / "components/prometheus-adapter/rules.yaml").read_text()))
    )
    (config,) = manifests.of("ConfigMap")
    rules = yaml.safe_load(config["data"]["config.yaml"])["rules"]
    (rule,) = (rule for rule in rules if metric in adapter_names(only(rule), GAUGES).values())
    query = (
        rule["metricsQuery"]
        .replace("<<.Series>>", metric)
        .replace("<<.LabelMatchers>>", 'namespace="llm-gateway",pod=~"a|b"')
        .replace("<<.GroupBy>>", "pod")
    )
    # Two engines in pod a: one is at 4 all the time, one goes up and down around 3 for the last
    # minute, whose first moment belongs to it or not by the version of Prometheus.
    series = {
        f'{metric}{{namespace="llm-gateway",pod="a",engine="0"}}': "4x40",
        f'{metric}{{namespace="llm-gateway",pod="a",engine="1"}}': "3x16 0 6 0 6",
        f'{metric}{{namespace="llm-gateway",pod="c",engine="0"}}': "9x40",
    }
    value = 4 if metric == "vllm:kv_cache_usage_perc" else 7
    answers(tmp_path, query, series, [{"labels": '{pod="a"}', "value": value}])


def only(rule: Any) -> Manifests:
    data = {"config.yaml": yaml.safe_dump({"rules": [rule]})}
    return Manifests([{"kind": "ConfigMap", "metadata": {"name": "rules"}, "data": data}])
