"""Alert policies and the dashboard of an endpoint: what is to be changed, and the changes.

What is ours is known by its labels. What people set in the console stays: channels of a policy
that the command names none for, and whether a policy is switched on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from deploy.vertex.alerts import Rules, policy_of, rules_for
from deploy.vertex.dashboard import dashboard_of
from deploy.vertex.monitor_rest import MonitoringApi
from deploy.vertex.requests import as_json
from deploy.vertex.spec import Spec
from deploy.vertex.state import Progress

_POLICY_MASK = (
    "display_name,documentation,user_labels,conditions,combiner,notification_channels,severity,"
    "alert_strategy"
)


@dataclass(frozen=True, slots=True)
class Change:
    """One request. ``kind`` is alertPolicies or dashboards; ``name`` is empty for a new one."""

    action: Literal["create", "update", "delete"]
    kind: Literal["alertPolicies", "dashboards"]
    title: str
    name: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What to change, how much is as it should be, and the alerts that an endpoint cannot have."""

    changes: list[Change]
    unchanged: int
    left_out: dict[str, str]


def plan_monitoring(api: MonitoringApi, spec: Spec, channels: tuple[str, ...]) -> Plan:
    """Compare with what is there; changes nothing. Raises VertexError."""
    rules = rules_for(spec)
    policies = list(_policy_changes(api, spec, rules, channels))
    boards = list(_dashboard_changes(api, spec))
    changes = [each for each in (*policies, *boards) if each is not None]
    same = len(policies) + len(boards) - len(changes)
    return Plan(changes, same, rules.left_out)


def plan_removal(api: MonitoringApi, spec: Spec) -> list[Change]:
    """Everything that was made for the spec. Raises VertexError."""
    policies = [
        Change("delete", "alertPolicies", each["displayName"], each["name"], {})
        for each in _ours(api, spec, "v3", "alertPolicies", "userLabels")
    ]
    boards = [
        Change("delete", "dashboards", each["displayName"], each["name"], {})
        for each in _ours(api, spec, "v1", "dashboards", "labels")
    ]
    return policies + boards


def carry_out(api: MonitoringApi, changes: list[Change], progress: Progress) -> None:
    """Send them; each stands alone, so that a run that broke off goes on. Raises VertexError."""
    for change in changes:
        progress(f"{change.action} {change.title}")
        version = "v3" if change.kind == "alertPolicies" else "v1"
        if change.action == "create":
            api.call("POST", f"{version}/projects/{api.project}/{change.kind}", change.body)
        elif change.action == "delete":
            api.call("DELETE", f"{version}/{change.name}")
        else:
            mask = {"updateMask": _POLICY_MASK} if change.kind == "alertPolicies" else None
            api.call("PATCH", f"{version}/{change.name}", change.body, parameters=mask)


def _policy_changes(
    api: MonitoringApi, spec: Spec, rules: Rules, channels: tuple[str, ...]
) -> Iterator[Change | None]:
    """A change per policy, or None where it is as it should be."""
    there: dict[str, dict[str, Any]] = {}
    for each in _ours(api, spec, "v3", "alertPolicies", "userLabels"):
        key = each["userLabels"].get("alert", "")
        if key in there:
            yield Change("delete", "alertPolicies", each["displayName"], each["name"], {})
        else:
            there[key] = each
    for rule in rules.rules:
        found = there.pop(rule.name.lower(), None)
        if found is None:
            wanted = as_json(policy_of(spec, rule, channels))
            yield Change("create", "alertPolicies", wanted["displayName"], "", wanted)
            continue
        kept = channels or tuple(found.get("notificationChannels", ()))
        wanted = as_json(policy_of(spec, rule, kept))
        wanted["enabled"] = found.get("enabled", True)
        if covers(found, wanted):
            yield None
            continue
        # A condition that keeps its name keeps its incidents.
        if len(found.get("conditions", [])) == 1:
            wanted["conditions"][0]["name"] = found["conditions"][0]["name"]
        wanted["name"] = found["name"]
        yield Change("update", "alertPolicies", wanted["displayName"], found["name"], wanted)
    for left in there.values():
        yield Change("delete", "alertPolicies", left["displayName"], left["name"], {})


def _dashboard_changes(api: MonitoringApi, spec: Spec) -> Iterator[Change | None]:
    wanted = dashboard_of(spec)
    found = list(_ours(api, spec, "v1", "dashboards", "labels"))
    if not found:
        yield Change("create", "dashboards", wanted["displayName"], "", wanted)
    for position, each in enumerate(found):
        if position:
            yield Change("delete", "dashboards", each["displayName"], each["name"], {})
        elif covers(each, wanted):
            yield None
        else:
            body = {**wanted, "name": each["name"], "etag": each.get("etag", "")}
            yield Change("update", "dashboards", wanted["displayName"], each["name"], body)


def _ours(
    api: MonitoringApi, spec: Spec, version: str, kind: str, labels: str
) -> Iterator[dict[str, Any]]:
    for each in api.list(f"{version}/projects/{api.project}/{kind}", kind):
        found = each.get(labels, {})
        if found.get("managed-by") == "llm-gateway" and found.get("deployment") == spec.name:
            yield each


def covers(found: Any, wanted: Any) -> bool:
    """Whether JSON from the server says what was wanted: it leaves out zeros, and adds fields."""
    if isinstance(wanted, dict):
        there = {} if found is None else found
        return isinstance(there, dict) and all(
            covers(there.get(key), value) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        there = [] if found is None else found
        return (
            isinstance(there, list)
            and len(there) == len(wanted)
            and all(map(covers, there, wanted))
        )
    return bool(found == wanted) or (found is None and not wanted)
