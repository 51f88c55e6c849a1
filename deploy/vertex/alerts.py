"""deploy/monitoring's alerts as alert policies of Cloud Monitoring, for one endpoint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.vertex import VertexError
from deploy.vertex.alerts_promql import REPLICAS, NotOnVertex, of_endpoint, vertex_expression
from deploy.vertex.spec import Spec

RULES = Path(__file__).parent.parent / "monitoring" / "rules"
EVALUATION_S = 60
_SEVERITIES = {"critical": "CRITICAL", "warning": "WARNING"}
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert as Cloud Monitoring can evaluate it.

    Attributes:
        group, name: in the rules file.
        for_s: how long the expression has to hold.
        severity: critical, warning or info.
    """

    group: str
    name: str
    expression: str
    for_s: int
    severity: str
    summary: str
    runbook: str


@dataclass(frozen=True, slots=True)
class Rules:
    """What can be asked of an endpoint, and what cannot: the metric that does not arrive there,
    by alert."""

    rules: tuple[Rule, ...]
    left_out: dict[str, str]


def rules_for(spec: Spec, folder: Path = RULES) -> Rules:
    """The alerts for the spec's endpoint. Raises VertexError when the files are not readable."""
    recorded = {
        rule["record"]: rule["expr"]
        for _, rule in read_rules(folder / "recording.yaml")
        if "record" in rule
    }
    found = list(native_rules(spec))
    left_out: dict[str, str] = {}
    for group, rule in read_rules(folder / "alerts.yaml"):
        name = rule["alert"]
        try:
            expression = vertex_expression(rule["expr"], recorded, spec.endpoint_id)
        except NotOnVertex as error:
            left_out[name] = str(error)
            continue
        found.append(
            Rule(
                group=group,
                name=name,
                expression=expression,
                for_s=seconds(rule.get("for", "0s")),
                severity=rule["labels"]["severity"],
                summary=rule["annotations"]["summary"],
                runbook=rule["annotations"].get("runbook_url", ""),
            )
        )
    return Rules(tuple(found), left_out)


def native_rules(spec: Spec) -> Iterator[Rule]:
    """What Vertex AI alone knows, in place of the alerts on a missing gateway."""
    if spec.scales_to_zero:
        return  # no replica is its state of rest
    replicas = of_endpoint(REPLICAS, spec.endpoint_id)
    yield Rule(
        group="llm-gateway-vertex",
        name="VertexNoReplica",
        expression=f"sum by (endpoint_id) ({replicas}) < 1 or absent({replicas})",
        for_s=300,
        severity="critical",
        summary="The endpoint has no replica",
        runbook="docs/deploy/vertex.md#monitoring",
    )


def policy_of(spec: Spec, rule: Rule, channels: tuple[str, ...]) -> Any:
    """The ``AlertPolicy``; ``channels`` are names of notification channels."""
    from google.cloud import monitoring_v3
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.wrappers_pb2 import BoolValue

    policy = monitoring_v3.AlertPolicy
    where = f"Endpoint {spec.name} ({spec.endpoint_id}) in {spec.region}, project {spec.project}."
    runbook = f" Runbook: {rule.runbook}" if rule.runbook else ""
    condition = policy.Condition(
        display_name=f"{rule.group}/{rule.name}",
        condition_prometheus_query_language=policy.Condition.PrometheusQueryLanguageCondition(
            query=rule.expression,
            duration=Duration(seconds=rule.for_s),
            evaluation_interval=Duration(seconds=EVALUATION_S),
            rule_group=rule.group,
            alert_rule=rule.name,
            # Metrics of an endpoint exist only once it has been asked something.
            disable_metric_validation=True,
        ),
    )
    return policy(
        display_name=f"{spec.name}: {rule.summary}",
        documentation=policy.Documentation(
            content=f"{rule.summary}. {where}{runbook}", mime_type="text/markdown"
        ),
        user_labels={**spec.all_labels, "alert": rule.name.lower()},
        conditions=[condition],
        combiner=policy.ConditionCombinerType.OR,
        enabled=BoolValue(value=True),
        notification_channels=list(channels),
        severity=policy.Severity[_SEVERITIES.get(rule.severity, "SEVERITY_UNSPECIFIED")],
        alert_strategy=policy.AlertStrategy(auto_close=Duration(seconds=1800)),
    )


def read_rules(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each rule of a Prometheus rules file with the name of its group. Raises VertexError."""
    import yaml  # type: ignore[import-untyped]

    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise VertexError(f"{file} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise VertexError(f"{file} is not YAML: {error}") from None
    for group in document["groups"]:
        for rule in group["rules"]:
            yield group["name"], rule


def seconds(duration: str) -> int:
    """Of a Prometheus duration such as 5m or 1h30m. Raises VertexError."""
    if not re.fullmatch(r"(\d+[smhd])+", duration):
        raise VertexError(f"{duration} is no duration such as 5m")
    parts = re.findall(r"(\d+)([smhd])", duration)
    return sum(int(count) * _UNITS[unit] for count, unit in parts)
