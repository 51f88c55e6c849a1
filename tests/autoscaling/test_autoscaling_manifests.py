"""The shipped manifests mean what the closed loop takes them for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.autoscaling.hpa import USUAL_DOWN, USUAL_UP, Direction, Hpa, Metric, Rate
from benchmarks.autoscaling.keda import Keda
from benchmarks.autoscaling.manifests import (
    K8S,
    TRIGGER,
    AdapterRule,
    ManifestError,
    ScaledObject,
    adapter_rules,
    behavior_of,
    faster,
    faster_query,
    hpa_of,
    read,
    scaled_object,
    thousandths,
)
from gateway.routing.load import config_of_text
from gateway.settings import Settings

TWO_LAYERS = K8S / "overlays" / "gpu-vllm-with-cpu-fallback"


def test_the_base_scales_up_fast_and_down_slowly_by_what_waits() -> None:
    hpa = hpa_of(read(K8S / "base" / "hpa.yaml"))
    assert hpa.metrics[0].name == "vllm_num_requests_waiting"
    assert hpa.up.window_s == 0
    assert hpa.down.window_s >= 300
    grows = max(rate.value / rate.period_s for rate in hpa.up.rates if rate.kind == "Pods")
    assert all(rate.kind == "Pods" for rate in hpa.down.rates)
    assert max(rate.value / rate.period_s for rate in hpa.down.rates) < grows


def test_the_engines_behind_a_gateway_scale_to_zero_and_it_holds_their_queue() -> None:
    scaled = scaled_object(read(TWO_LAYERS / "engine-scaledobject.yaml"))
    assert "gateway_queue_depth" in scaled.query
    assert scaled.activation == 0
    text = (TWO_LAYERS / "gateway" / "gateway.yaml").read_text()
    models = config_of_text(text, Settings(), {"ENGINE_KEY": "k"}).models
    chat = next(model for model in models if model.name == "chat")
    assert chat.wait_for_target_s > 0
    assert f'model_name="{chat.name}"' in scaled.query


def test_a_query_of_the_adapter_is_for_the_pods_of_the_target() -> None:
    rules = adapter_rules(read(K8S / "components" / "prometheus-adapter" / "rules.yaml"))
    names = {rule.metric("vllm:num_requests_waiting") for rule in rules}
    assert "vllm_num_requests_waiting" in names
    rule = AdapterRule("s", "^vllm:(.*)$", "vllm_${1}", "sum(<<.Series>>{<<.LabelMatchers>>}[1m])")
    assert rule.metric("vllm:x") == "vllm_x"
    assert rule.metric("other") is None
    one = rule.expression("vllm:x", "ns", ["a"])
    assert one == 'sum(vllm:x{namespace="ns",pod="a"}[1m])'
    both = rule.expression("vllm:x", "ns", ["a", "b"])
    assert both == 'sum(vllm:x{namespace="ns",pod=~"a|b"}[1m])'
    unknown = AdapterRule("s", "(.*)", "$1", "<<.Other>>")
    with pytest.raises(ManifestError, match="placeholder"):
        unknown.expression("x", "ns", ["a"])


def test_time_can_run_faster() -> None:
    assert (
        faster_query("avg_over_time(x[1m]) + y[30s]", 60) == "avg_over_time(x[1000ms]) + y[500ms]"
    )
    slow = Hpa(1, 2, (), Direction(60, (Rate("Pods", 1, 120),)), USUAL_DOWN)
    quick = faster(slow, 60)
    assert (quick.up.window_s, quick.up.rates[0].period_s) == (1, 2)
    assert quick.down.window_s == 5


@pytest.mark.parametrize(
    ("quantity", "value"), [("4", 4000), ("800m", 800), ("1.5", 1500), ("2k", 2_000_000)]
)
def test_quantities(quantity: str, value: int) -> None:
    assert thousandths(quantity) == value


def test_what_is_not_understood_is_told(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="missing"):
        read(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("[]")
    with pytest.raises(ManifestError, match="no object"):
        read(tmp_path / "list.yaml")
    with pytest.raises(ManifestError, match="quantity"):
        thousandths("4Gi")
    with pytest.raises(ManifestError, match="Resource"):
        hpa_of({"spec": {"maxReplicas": 2, "metrics": [{"type": "Resource"}]}})
    rules = yaml.safe_dump({"rules": [{"resources": {"overrides": {"job": {"resource": "job"}}}}]})
    with pytest.raises(ManifestError, match="other resources"):
        adapter_rules({"data": {"config.yaml": rules}})


def test_the_defaults_of_the_api_server() -> None:
    assert behavior_of(None) == (USUAL_UP, USUAL_DOWN)
    up, down = behavior_of({"scaleUp": {"selectPolicy": "Min"}})
    assert up == Direction(0, USUAL_UP.rates, "Min")
    assert down == USUAL_DOWN


def trigger(**changes: Any) -> dict[str, Any]:
    said = {"query": "q", "threshold": "2", "activationThreshold": "1"}
    one = {"type": "prometheus", "metricType": "AverageValue", "metadata": said}
    spec = {"minReplicaCount": 0, "maxReplicaCount": 3, "triggers": [one], "cooldownPeriod": 60}
    return {"spec": spec | changes}


def test_the_first_replica_and_the_last() -> None:
    scaled = scaled_object(trigger())
    metric = Metric("External", TRIGGER, 2000)
    assert scaled == ScaledObject(Hpa(1, 3, (metric,)), "q", 1.0, 60.0, 30.0)
    keda = Keda(scaled)
    assert keda.decide(0, 0, {}, None).replicas == 0
    assert keda.decide(1, 0, {}, 1.0).replicas == 0
    assert keda.decide(2, 0, {}, 1.5).replicas == 1
    one: Any = {"a": "running"}
    assert keda.decide(3, 1, one, 6.0).replicas == 3
    three: Any = dict.fromkeys("abc", "running")
    assert keda.decide(4, 3, three, None).replicas == 3
    assert keda.decide(62, 3, three, 0.0).replicas == 3
    assert keda.decide(64, 3, three, 0.0).replicas == 0
    with pytest.raises(ManifestError, match="no replica at rest"):
        scaled_object(trigger(minReplicaCount=1))
    with pytest.raises(ManifestError, match="AverageValue"):
        scaled_object(trigger(triggers=[{"type": "cron", "metricType": "Value"}]))
