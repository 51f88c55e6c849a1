"""Carrying changes out, looking at what runs, and taking it away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from deploy.cloudrun import CloudRunError
from deploy.cloudrun.changes import (
    Change,
    changes_of,
    creation,
    find_changes,
    find_policy,
    find_service,
    members_of,
    message,
)
from deploy.cloudrun.client import Cloud, explained
from deploy.cloudrun.spec import Spec

Tell = Callable[[str], None]
# Pulling a large image and loading a model take minutes; Cloud Run itself gives up earlier.
LONGEST_S = 1800.0


def apply(cloud: Cloud, spec: Spec, tell: Tell) -> list[Change]:
    """Make the service as the spec has it; returns what was done. Raises CloudRunError.

    An apply that was broken off goes on: what it had begun is waited for first.
    """
    settle(cloud, spec, tell)
    changes = find_changes(cloud, spec)
    for change in changes:
        tell(change.title)
        with explained(change.title):
            _carry_out(cloud, spec, change, tell)
    return changes


def _carry_out(cloud: Cloud, spec: Spec, change: Change, tell: Tell) -> None:
    body = change.request["body"]
    if change.kind == "invokers":
        from google.iam.v1 import iam_policy_pb2
        from google.protobuf.json_format import ParseDict

        request = ParseDict(
            {"resource": spec.full_name, **body}, iam_policy_pb2.SetIamPolicyRequest()
        )
        cloud.services.set_iam_policy(request=request)
        return
    service = message(body)
    if change.kind == "create":
        operation = cloud.services.create_service(
            parent=spec.parent, service=service, service_id=spec.name
        )
    else:
        service.name = spec.full_name
        operation = cloud.services.update_service(service=service)
    wait(cloud, operation, change.title, tell)


def wait(cloud: Cloud, operation: Any, title: str, tell: Tell) -> None:
    """Until a long-running operation is done. Raises CloudRunError and what it ended with."""
    began = time.monotonic()
    while not operation.done():
        waited = time.monotonic() - began
        if waited > LONGEST_S:
            raise CloudRunError(
                f"{title}: still under way after {waited:.0f} s: llm-gateway deploy cloudrun "
                "status says how it goes on"
            )
        tell(f"{title} ({waited:.0f} s)")
        time.sleep(cloud.poll_s)
    operation.result()


def settle(cloud: Cloud, spec: Spec, tell: Tell) -> None:
    """Until no change to the service is under way. Raises CloudRunError."""
    began = time.monotonic()
    while (found := find_service(cloud, spec)) is not None and found.reconciling:
        if time.monotonic() - began > LONGEST_S:
            raise CloudRunError(f"{spec.name} has been changing for {LONGEST_S:.0f} s: try later")
        tell("waiting for a change that is under way")
        time.sleep(cloud.poll_s)


def status(cloud: Cloud, spec: Spec) -> dict[str, Any]:
    """What runs. Raises CloudRunError.

    Keys: ``exists``, ``url``, ``ready``, ``message``, ``revision`` (that serves), ``created`` (the
    newest), ``image``, ``invokers``, ``pending`` (titles of what apply would do).
    """
    found = find_service(cloud, spec)
    if found is None:
        return {"exists": False, "pending": [change.title for change in creation(spec)]}
    policy = find_policy(cloud, spec)
    condition = found.terminal_condition
    return {
        "exists": True,
        "url": found.uri,
        "ready": condition.state.name == "CONDITION_SUCCEEDED" and not found.reconciling,
        "message": condition.message,
        "revision": found.latest_ready_revision.rpartition("/")[2],
        "created": found.latest_created_revision.rpartition("/")[2],
        "image": found.template.containers[0].image if found.template.containers else "",
        "invokers": sorted(members_of(policy)),
        "pending": [change.title for change in changes_of(spec, found, policy)],
    }


def destroy(cloud: Cloud, spec: Spec, tell: Tell) -> None:
    """Remove the service and its revisions. Raises CloudRunError."""
    title = f"remove the service {spec.name}"
    with explained(title):
        tell(title)
        wait(cloud, cloud.services.delete_service(name=spec.full_name), title, tell)


def kept(spec: Spec) -> Sequence[str]:
    """What ``destroy`` leaves, since other things may use it."""
    secrets = sorted({secret.secret for secret in spec.secrets.values()})
    return [
        f"image {spec.image}",
        *(f"secret {name}" for name in secrets),
        *([f"bucket {spec.models.bucket}"] if spec.models else []),
    ]
