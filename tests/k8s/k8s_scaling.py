"""What is wrong with autoscaling: targets, signals, their names and sizes, and its speed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import yaml
from k8s_manifests import Manifests, Object, Workload
from k8s_settings import values_of, waiting_models

from gateway.settings import ONNX_MAX_NUM_SEQS
from gateway.settings_vllm import VLLM_MAX_NUM_SEQS

WAITING = "vllm:num_requests_waiting"
STACKDRIVER = re.compile(r"prometheus\.googleapis\.com\|(?P<name>[^|]+)\|(?P<type>gauge|counter)")
# By name of the metric, the models that have samples of it.
Exported = Mapping[str, Set[str]]
_MODEL = re.compile(r'\bmodel_name="([^"]*)"')
_METRIC = re.compile(r"\b((?:gateway|vllm):?_?[a-z0-9_:]+)\{([^}]*)\}")


def adapter_names(manifests: Manifests, exported: Iterable[str]) -> dict[str, str]:
    """Custom metrics of pods as prometheus-adapter derives them from what the app exports: by
    each rule's series query and its name, with Go's ``${1}`` for the groups."""
    found = {}
    for config in manifests.of("ConfigMap"):
        for rule in (yaml.safe_load(config["data"].get("config.yaml", "{}")) or {}).get(
            "rules", []
        ):
            series = re.fullmatch(
                r'\{__name__=~"(.+?)",namespace!="",pod!=""\}', rule["seriesQuery"]
            )
            assert series is not None, rule["seriesQuery"]
            for metric in exported:
                if re.search(series[1], metric) and re.search(rule["name"]["matches"], metric):
                    pattern = re.sub(r"\$\{(\d+)\}", r"\\\1", rule["name"]["as"])
                    found[re.sub(rule["name"]["matches"], pattern, metric)] = metric
    return found


def targets(manifests: Manifests) -> Iterator[str]:
    """Each scaler has a target of its own, and nobody else says how many there are."""
    seen: set[tuple[str, str]] = set()
    for scaler in scalers(manifests):
        reference = scaler["spec"]["scaleTargetRef"]
        target = manifests.named(reference["kind"], reference["name"])
        if target is None or target["apiVersion"] != reference["apiVersion"]:
            yield f"{scaler['kind']}: there is no {reference['kind']} {reference['name']}"
            continue
        if target["metadata"]["namespace"] != scaler["metadata"]["namespace"]:
            yield f"{scaler['kind']}: {reference['name']} is in another namespace"
        if "replicas" in target["spec"]:
            yield f"{reference['name']} has replicas, which undoes its autoscaler's work"
        if (one := (reference["kind"], reference["name"])) in seen:
            yield f"{reference['name']} has two autoscalers"
        seen.add(one)
    for kind in ("Deployment", "LeaderWorkerSet"):
        for item in manifests.of(kind):
            if (kind, item["metadata"]["name"]) not in seen and "replicas" not in item["spec"]:
                yield f"{item['metadata']['name']} has neither an autoscaler nor replicas"


def signals(manifests: Manifests, exported: Exported) -> Iterator[str]:
    """Every metric is one that the gateway exports, under the name that it gets on its way."""
    custom = adapter_names(manifests, exported)
    for scaler in manifests.of("HorizontalPodAutoscaler"):
        first = ""
        for metric in scaler["spec"]["metrics"]:
            if metric["type"] == "Resource":
                continue
            name = metric["pods"]["metric"]["name"]
            if (match := STACKDRIVER.fullmatch(name)) is not None:
                if match["name"] not in exported:
                    yield f"{name}: the gateway exports no {match['name']}"
                first = first or match["name"]
            elif name not in custom:
                yield f"{name} is not what the adapter makes of a metric of the gateway"
            else:
                first = first or custom[name]
        if first not in (WAITING, "gateway_requests_in_flight"):
            yield f"the first signal is {first} and not what waits"
    for scaler in manifests.of("ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            found = _METRIC.findall(query)
            if not found or re.search(r"gpu|dcgm|duty", query, re.IGNORECASE):
                yield f"{query}: not the gateway's own load"
            for name, labels in found:
                model = _MODEL.search(labels)
                if name not in exported or (model and model[1] not in exported[name]):
                    yield f"{query}: the gateway exports no {name} of {model and model[1]}"
                if f'namespace="{scaler["metadata"]["namespace"]}"' not in labels:
                    yield f"{query}: {name} is of any namespace"
            if trigger["metadata"].get("ignoreNullValues") != "false":
                yield f"{query}: a Prometheus that knows nothing counts as no load"


def thresholds(manifests: Manifests) -> Iterator[str]:
    """A new replica comes before the engine is full, and shares are shares."""
    for scaler in scalers(manifests):
        reference = scaler["spec"]["scaleTargetRef"]["name"]
        workload = next((w for w in manifests.workloads() if w.name == reference), None)
        if workload is None:
            continue  # told by targets()
        for metric, wanted in goals(scaler):
            most = capacity(manifests, workload)
            if "num_requests_running" in metric and not 0 < wanted < most:
                yield f"{reference}: {wanted:g} running is all that an engine takes"
            if "kv_cache_usage" in metric and not 0.3 <= wanted <= 0.95:
                yield f"{reference}: a KV cache that is {wanted:g} full; 1 is full"


def capacity(manifests: Manifests, workload: Workload) -> int:
    """Sequences that its engine decodes together."""
    values = values_of(manifests, workload)
    usual = VLLM_MAX_NUM_SEQS if values.get("ENGINE") == "vllm" else ONNX_MAX_NUM_SEQS
    return int(values.get("MAX_NUM_SEQS", usual))


def goals(scaler: Object) -> Iterator[tuple[str, float]]:
    """Each metric or query with what a replica is to have of it."""
    for metric in scaler["spec"].get("metrics", []):
        if metric["type"] == "Pods":
            wanted = str(metric["pods"]["target"]["averageValue"])
            milli = wanted.endswith("m")
            yield (
                metric["pods"]["metric"]["name"],
                float(wanted.rstrip("m")) / (1000 if milli else 1),
            )
    for trigger in scaler["spec"].get("triggers", []):
        yield trigger["metadata"]["query"], float(trigger["metadata"]["threshold"])


def speed(manifests: Manifests) -> Iterator[str]:
    """Up at once, down slowly."""
    for scaler in scalers(manifests):
        rules = behaviour(scaler)
        up, down = rules.get("scaleUp", {}), rules.get("scaleDown", {})
        name = scaler["metadata"]["name"]
        if up.get("stabilizationWindowSeconds", 0) > 30:
            yield f"{name} waits before it scales up"
        if down.get("stabilizationWindowSeconds", 300) < 300:
            yield f"{name} scales down within {down['stabilizationWindowSeconds']} s of less load"
        if not down.get("policies") or any(
            policy["value"] * 60 / policy["periodSeconds"] > 1 or policy["type"] != "Pods"
            for policy in down["policies"]
        ):
            yield f"{name} takes more than one pod a minute away"


def behaviour(scaler: Object) -> dict[str, Any]:
    if scaler["kind"] == "HorizontalPodAutoscaler":
        return dict(scaler["spec"].get("behavior", {}))
    advanced = scaler["spec"].get("advanced", {})
    return dict(advanced.get("horizontalPodAutoscalerConfig", {}).get("behavior", {}))


def zero(manifests: Manifests) -> Iterator[str]:
    """None are left only where a gateway in front holds the requests meanwhile."""
    waits = waiting_models(manifests)
    for scaler in scalers(manifests):
        spec = scaler["spec"]
        name = spec["scaleTargetRef"]["name"]
        least = spec.get("minReplicas", spec.get("minReplicaCount", 0))
        if least < 1 and not waits.get(name):
            yield f"{name} may go down to none, and nobody holds its requests"
        polled = spec.get("pollingInterval", 15) + SCRAPE_S
        if least < 1 and 0 < waits.get(name, 0) < 2 * polled:
            yield f"{name}: requests wait {waits[name]:g} s, which its autoscaler may never see"


SCRAPE_S = 15


def scalers(manifests: Manifests) -> list[Object]:
    return [*manifests.of("HorizontalPodAutoscaler"), *manifests.of("ScaledObject")]
