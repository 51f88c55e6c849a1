"""What there is against what there has to be, as a list of requests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deploy.cloudrun.client import Cloud, explained
from deploy.cloudrun.service import v2_service
from deploy.cloudrun.spec import Spec

ROLE = "roles/run.invoker"
ATTEMPT = "llm-gateway/attempt"
# What a service may have and ours leave out: there, the cloud adds nothing by itself.
_OURS = frozenset(
    {
        "args", "command", "env", "gpuZonalRedundancyDisabled", "nodeSelector", "sessionAffinity",
        "volumeMounts", "volumes", "vpcAccess", "workingDir",
    }
)  # fmt: skip
Kind = Literal["create", "update", "invokers"]


@dataclass(frozen=True, slots=True)
class Change:
    """One request that ``apply`` makes.

    Attributes:
        request: method and path, and its body, as JSON.
        differs: paths within the service whose values change.
    """

    kind: Kind
    title: str
    request: dict[str, Any]
    differs: tuple[str, ...] = ()

    def text(self) -> str:
        body = json.dumps(self.request["body"], indent=2, ensure_ascii=False)
        because = f"  # {', '.join(self.differs)}\n" if self.differs else ""
        return f"{self.title}\n{because}{self.request['method']} {self.request['path']}\n{body}"


def creation(spec: Spec) -> list[Change]:
    """The requests where there is nothing yet, and nothing to look at."""
    path = f"/v2/{spec.parent}/services?serviceId={spec.name}"
    create = Change(
        "create",
        f"create the service {spec.name}",
        {"method": "POST", "path": path, "body": v2_service(spec)},
    )
    members = wanted_members(spec)
    return [create, _invokers(spec, members, {"bindings": []})] if members else [create]


def find_changes(cloud: Cloud, spec: Spec) -> list[Change]:
    """The requests that lead from what there is to the spec; none when it is so already.

    Raises CloudRunError.
    """
    found = find_service(cloud, spec)
    return creation(spec) if found is None else changes_of(spec, found, find_policy(cloud, spec))


def changes_of(spec: Spec, found: Any, policy: Mapping[str, Any]) -> list[Change]:
    """The same for a service that is there, with its IAM policy."""
    changes = []
    body = v2_service(spec)
    title = f"change the service {spec.name}: a new revision gets all requests"
    paths = differences(body, as_json(found))
    if not paths and found.terminal_condition.state.name == "CONDITION_FAILED":
        # What stood in the way, a secret or a right, may be there now; without a difference the
        # cloud would make no new revision.
        title = f"try the service {spec.name} again: {found.terminal_condition.message}"
        body["template"]["annotations"] = {ATTEMPT: str(found.generation)}
        paths = ["template.annotations"]
    if paths:
        request = {"method": "PATCH", "path": f"/v2/{spec.full_name}", "body": body}
        changes.append(Change("update", title, request, tuple(paths)))
    if set(wanted_members(spec)) != members_of(policy):
        changes.append(_invokers(spec, wanted_members(spec), policy))
    return changes


def find_service(cloud: Cloud, spec: Spec) -> Any | None:
    """The ``run_v2.Service`` of the spec's name, or None."""
    from google.api_core.exceptions import NotFound

    with explained(f"looking for the service {spec.name}"):
        try:
            return cloud.services.get_service(name=spec.full_name)
        except NotFound:
            return None


def find_policy(cloud: Cloud, spec: Spec) -> dict[str, Any]:
    """The service's IAM policy as JSON."""
    from google.iam.v1 import iam_policy_pb2
    from google.protobuf.json_format import MessageToDict

    with explained("looking for those who may call the service"):
        request = iam_policy_pb2.GetIamPolicyRequest(resource=spec.full_name)
        return dict(MessageToDict(cloud.services.get_iam_policy(request=request)))


def wanted_members(spec: Spec) -> list[str]:
    return ["allUsers"] if spec.access.public else sorted(spec.access.invokers)


def members_of(policy: Mapping[str, Any]) -> set[str]:
    """Those that a policy lets call the service, without conditions."""
    return {
        member
        for binding in policy.get("bindings", ())
        if binding["role"] == ROLE and "condition" not in binding
        for member in binding.get("members", ())
    }


def _invokers(spec: Spec, members: list[str], policy: Mapping[str, Any]) -> Change:
    """The whole policy is sent back; its etag has the cloud refuse one that has changed since."""
    others = [
        binding
        for binding in policy.get("bindings", ())
        if binding["role"] != ROLE or "condition" in binding
    ]
    ours = [{"role": ROLE, "members": members}] if members else []
    body = {"policy": {**policy, "bindings": [*others, *ours]}}
    who = ", ".join(members) or "nobody"
    path = f"/v2/{spec.full_name}:setIamPolicy"
    return Change("invokers", f"let {who} call it", {"method": "POST", "path": path, "body": body})


def message(body: Mapping[str, Any]) -> Any:
    """The ``run_v2.Service`` of JSON; an unknown field is an error."""
    from google.cloud import run_v2
    from google.protobuf.json_format import ParseDict

    return run_v2.Service(ParseDict(dict(body), run_v2.Service.pb(run_v2.Service())))


def as_json(service: Any) -> dict[str, Any]:
    """A ``run_v2.Service`` as JSON, without what has its default."""
    from google.cloud import run_v2
    from google.protobuf.json_format import MessageToDict

    return dict(MessageToDict(run_v2.Service.pb(service)))


def differences(wanted: Any, found: Any, where: str = "") -> list[str]:
    """Paths at which ``found`` is not as wanted. What the cloud adds by itself does not count,
    nor does the order of what has a name."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        paths = []
        for name, value in wanted.items():
            place = f"{where}.{name}".lstrip(".")
            if name in found:
                paths += differences(value, found[name], place)
            elif value:  # the library leaves out what is false, 0 or empty
                paths.append(place)
        extra = sorted(_OURS & set(found) - set(wanted))
        return paths + [f"{where}.{name}".lstrip(".") for name in extra]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [
            path
            for i, (one, other) in enumerate(zip(_ordered(wanted), _ordered(found), strict=True))
            for path in differences(one, other, f"{where}[{i}]")
        ]
    return [] if wanted == found else [where]


def _ordered(items: list[Any]) -> list[Any]:
    named = all(isinstance(item, dict) and "name" in item for item in items)
    return sorted(items, key=lambda item: str(item["name"])) if named else items
