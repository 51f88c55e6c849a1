"""What the manifests in ``k8s/`` say of autoscaling, read from the files that are shipped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml

from benchmarks.autoscaling.hpa import (
    TOLERANCE,
    USUAL_DOWN,
    USUAL_UP,
    Direction,
    Hpa,
    Metric,
    Rate,
)

K8S = Path(__file__).parents[2] / "k8s"
_SUFFIXES = {"m": Decimal("0.001"), "": Decimal(1), "k": Decimal(1000), "M": Decimal(1_000_000)}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|M|)")
_RANGE = re.compile(r"\[(\d+)(s|m|h)\]")
_UNIT_S = {"s": 1, "m": 60, "h": 3600}
# What KEDA calls the metric of a trigger; one per ScaledObject is enough here.
TRIGGER = "trigger"


class ManifestError(Exception):
    """A manifest is missing, or says something that is not understood here."""


def documents(folder: Path = K8S) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every object of every manifest, with its file."""
    for path in sorted(folder.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if isinstance(document, dict) and "kind" in document:
                yield path, document


def read(path: Path) -> dict[str, Any]:
    """The one object of a file. Raises ManifestError."""
    if not path.is_file():
        raise ManifestError(f"{path} is missing")
    found = yaml.safe_load(path.read_text())
    if not isinstance(found, dict):
        raise ManifestError(f"{path} holds no object")
    return found


def thousandths(quantity: str) -> int:
    """A quantity such as ``4``, ``"12"`` or ``800m``. Raises ManifestError."""
    found = _QUANTITY.fullmatch(str(quantity))
    if found is None:
        raise ManifestError(f"'{quantity}' is no quantity that is known here")
    return int(Decimal(found[1]) * _SUFFIXES[found[2]] * 1000)


def hpa_of(document: dict[str, Any]) -> Hpa:
    """A HorizontalPodAutoscaler. Raises ManifestError."""
    spec = document["spec"]
    metrics = []
    for one in spec["metrics"]:
        if one["type"] != "Pods":
            raise ManifestError(f"metrics of type {one['type']} are not understood here")
        pods = one["pods"]
        metrics.append(
            Metric("Pods", pods["metric"]["name"], thousandths(pods["target"]["averageValue"]))
        )
    up, down = behavior_of(spec.get("behavior"))
    return Hpa(spec.get("minReplicas", 1), spec["maxReplicas"], tuple(metrics), up, down)


def behavior_of(behavior: dict[str, Any] | None) -> tuple[Direction, Direction]:
    """``behavior`` with the API server's defaults."""
    behavior = behavior or {}
    return (
        _direction(behavior.get("scaleUp"), USUAL_UP),
        _direction(behavior.get("scaleDown"), USUAL_DOWN),
    )


def _direction(rules: dict[str, Any] | None, usual: Direction) -> Direction:
    if rules is None:
        return usual
    rates = tuple(
        Rate(policy["type"], policy["value"], policy["periodSeconds"])
        for policy in rules.get("policies", ())
    )
    return Direction(
        rules.get("stabilizationWindowSeconds", usual.window_s),
        rates or usual.rates,
        rules.get("selectPolicy", "Max"),
        float(rules.get("tolerance", TOLERANCE)),
    )


def faster(hpa: Hpa, factor: float) -> Hpa:
    """The same with every time divided by ``factor``."""

    def quick(rule: Direction) -> Direction:
        rates = tuple(replace(rate, period_s=rate.period_s / factor) for rate in rule.rates)
        return replace(rule, window_s=rule.window_s / factor, rates=rates)

    return replace(hpa, up=quick(hpa.up), down=quick(hpa.down))


def faster_query(expression: str, factor: float) -> str:
    """PromQL with every range (``[1m]``) divided by ``factor``."""

    def quick(found: re.Match[str]) -> str:
        return f"[{round(int(found[1]) * _UNIT_S[found[2]] * 1000 / factor)}ms]"

    return _RANGE.sub(quick, expression)


@dataclass(frozen=True, slots=True)
class AdapterRule:
    """One of prometheus-adapter's ``rules``, for metrics of pods.

    Attributes:
        series: a selector that finds its series.
        matches, named: the name of a series, and what the metric is called.
        query: with the adapter's placeholders.
    """

    series: str
    matches: str
    named: str
    query: str

    def metric(self, series: str) -> str | None:
        """What a series is called as a metric; None where the rule is not for it."""
        found = re.search(self.matches, series)
        return None if found is None else found.expand(re.sub(r"\$\{(\d+)\}", r"\\\1", self.named))

    def expression(self, series: str, namespace: str, pods: list[str]) -> str:
        """What the adapter asks Prometheus for these pods."""
        sign, names = ("=", pods[0]) if len(pods) == 1 else ("=~", "|".join(pods))
        filled = {
            "<<.Series>>": series,
            "<<.LabelMatchers>>": f'namespace="{namespace}",pod{sign}"{names}"',
            "<<.GroupBy>>": "pod",
        }
        text = self.query
        for placeholder, value in filled.items():
            text = text.replace(placeholder, value)
        if "<<" in text:
            raise ManifestError(f"{self.query}: a placeholder is not understood here")
        return text


def adapter_rules(document: dict[str, Any]) -> list[AdapterRule]:
    """The rules of the adapter's ConfigMap. Raises ManifestError."""
    rules = []
    for rule in yaml.safe_load(document["data"]["config.yaml"])["rules"]:
        resources = rule["resources"]["overrides"]
        if {label: to["resource"] for label, to in resources.items()} != {
            "namespace": "namespace",
            "pod": "pod",
        }:
            raise ManifestError("metrics of other resources than pods are not understood here")
        name = rule["name"]
        rules.append(
            AdapterRule(rule["seriesQuery"], name["matches"], name["as"], rule["metricsQuery"])
        )
    return rules


@dataclass(frozen=True, slots=True)
class ScaledObject:
    """A KEDA ScaledObject with one Prometheus trigger.

    Attributes:
        hpa: the one that KEDA makes of it, for one replica and more.
        activation: the metric above this makes the first replica.
        cooldown_s: from the last time that it was above, to none.
    """

    hpa: Hpa
    query: str
    activation: float
    cooldown_s: float
    polling_s: float


def scaled_object(document: dict[str, Any]) -> ScaledObject:
    """Raises ManifestError for what scales to more than one trigger, or not to zero."""
    spec = document["spec"]
    if len(spec["triggers"]) != 1 or spec.get("minReplicaCount") != 0:
        raise ManifestError("one trigger, and no replica at rest, are understood here")
    trigger = spec["triggers"][0]
    if trigger["type"] != "prometheus" or trigger["metricType"] != "AverageValue":
        raise ManifestError("a trigger of type prometheus with an AverageValue is understood here")
    said = trigger["metadata"]
    config = spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {})
    up, down = behavior_of(config.get("behavior"))
    metric = Metric("External", TRIGGER, thousandths(said["threshold"]))
    return ScaledObject(
        Hpa(1, spec["maxReplicaCount"], (metric,), up, down),
        said["query"],
        float(said.get("activationThreshold", 0)),
        float(spec.get("cooldownPeriod", 300)),
        float(spec.get("pollingInterval", 30)),
    )
