"""Plans, costs and status for people and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from deploy.vertex.costs import SURCHARGE, Cost, total
from deploy.vertex.requests import as_json
from deploy.vertex.spec import Spec
from deploy.vertex.steps import Step


def as_text(value: Any) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def plan_document(spec: Spec, steps: list[Step], costing: list[Cost]) -> str:
    """The whole plan as JSON."""
    low_high = total(costing)
    found = {
        "endpoint": spec.endpoint_name,
        "requests": [
            {
                "title": step.title,
                "service": f"{step.version}.{'Model' if step.of_models else 'Endpoint'}Service",
                "method": step.method,
                "request": as_json(step.request),
            }
            for step in steps
        ],
        "cost": {
            "deployments": [asdict(each) for each in costing],
            "monthly_min": None if low_high is None else round(low_high[0], 2),
            "monthly_max": None if low_high is None else round(low_high[1], 2),
            "note": SURCHARGE,
        },
    }
    return as_text(found)


def plan_text(spec: Spec, steps: list[Step], costing: list[Cost]) -> str:
    """Every request with its body, then the cost."""
    parts = [f"{spec.endpoint_name} ({spec.mode}, {spec.endpoint.access})"]
    for number, step in enumerate(steps, 1):
        service = "ModelService" if step.of_models else "EndpointService"
        parts.append(
            f"{number}. {step.title}\n{step.version} {service}.{step.method}\n"
            f"{as_text(as_json(step.request))}"
        )
    if not steps:
        parts.append("Nothing to do: all is as the spec says.")
    parts.append(cost_text(costing))
    return "\n\n".join(parts)


def summary(steps: list[Step], costing: list[Cost]) -> str:
    """Titles and cost, to decide by."""
    titles = "\n".join(f"{number}. {step.title}" for number, step in enumerate(steps, 1))
    return f"{titles}\n\n{cost_text(costing)}"


def cost_text(costing: list[Cost]) -> str:
    """Per deployment and in sum, with the figures' sources."""
    lines = []
    for each in costing:
        if each.hourly is None:
            lines.append(f"{each.deployment}: cost unknown")
        else:
            amount = _range(each.monthly_min or 0.0, each.monthly_max or 0.0, each.currency)
            lines.append(
                f"{each.deployment}: {amount} a month ({each.hourly:.4f} per replica and hour)"
            )
        lines += [f"  {note}" for note in each.notes]
    if (low_high := total(costing)) is not None and len(costing) > 1:
        lines.append(f"together: {_range(*low_high, costing[0].currency)} a month")
    return "\n".join([*lines, SURCHARGE])


def status_text(status: dict[str, Any]) -> str:
    """The status as lines."""
    lines = [f"endpoint  {status['display_name']}  {status['endpoint']}"]
    for each in status["deployed"]:
        gpu = (
            f" + {each['accelerator_count']} x {each['accelerator']}"
            if "accelerator" in each
            else ""
        )
        lines.append(
            f"{each['traffic']:>3} %  {each['version']}  replicas {each['replicas']} "
            f"({each['min_replicas']} to {each['max_replicas']})  {each['machine']}{gpu}"
            f"{'  Spot' if each['spot'] else ''}"
        )
        if each["message"]:
            lines.append(f"       {each['message']}")
    if not status["deployed"]:
        lines.append("nothing is deployed")
    names = {
        "service_attachment": "service attachment",
        "url": "url",
        "openai_base_url": "OpenAI base_url",
    }
    lines += [f"{names[key]}  {status[key]}" for key in names if status.get(key)]
    return "\n".join(lines)


def _range(low: float, high: float, currency: str) -> str:
    if low == high:
        return f"{currency} {low:,.2f}"
    return f"{currency} {low:,.2f} to {high:,.2f}"
