"""What is to be done next, from what is wanted and what there is.

One pure function decides. ``apply`` asks it again after each step; ``plan`` asks it likewise and
imagines the effects, so what it shows is what is sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.vertex import VertexError
from deploy.vertex import requests as build
from deploy.vertex.drift import endpoint_changes, resource_changes
from deploy.vertex.rollout_split import read_record
from deploy.vertex.spec import Deployment, Spec
from deploy.vertex.state import State


@dataclass(frozen=True, slots=True)
class Step:
    """One request that changes something.

    Attributes:
        method: of the client, such as ``deploy_model``.
        title: for people.
        request: the library's message.
        version: of the API.
        makes: full name of what exists afterwards, where it did not.
    """

    method: str
    title: str
    request: Any
    version: str = "v1"
    makes: str | None = None

    @property
    def of_models(self) -> bool:
        """Whether it goes to the model service."""
        return self.method in ("upload_model", "delete_model")


def next_step(spec: Spec, state: State) -> Step | None:
    """None when all is as the spec wants it. Raises VertexError for what cannot be changed, and
    while a rollout moves the traffic."""
    _refuse_during_rollout(state)
    version = "v1beta1" if spec.scales_to_zero else "v1"
    by_version = state.by_version()
    wanted = {build.version_of(spec, each): each for each in spec.deployments}
    missing = {title: each for title, each in wanted.items() if title not in by_version}
    for deployment in missing.values():
        name = build.model_name(spec, deployment)
        if name not in state.models:
            request = build.upload_model(spec, deployment)
            return Step("upload_model", f"upload model {request.model_id}", request, makes=name)
    if state.endpoint is None:
        request = build.create_endpoint(spec)
        title = f"create endpoint {spec.name} ({spec.endpoint_id})"
        return Step("create_endpoint", title, request, version, spec.endpoint_name)
    for method, title, request in endpoint_changes(spec, state.endpoint):
        return Step(method, title, request, version)
    kept = {by_version[title].id for title in wanted if title in by_version}
    left = [each for each in state.deployed() if each.id not in kept]
    if spec.scales_to_zero and missing and left:
        return _undeploy(spec, left[0], version, "requests fail until its successor runs")
    for title, deployment in _heaviest_first(missing):
        request = build.deploy_model(spec, deployment, alone=not state.split())
        machine = deployment.machine
        count = f", {machine.count} x {machine.accelerator}" if machine.accelerator else ""
        return Step("deploy_model", f"deploy {title} on {machine.type}{count}", request, version)
    for title, deployment in wanted.items():
        request = resource_changes(spec, deployment, by_version[title])
        if request is not None:
            return Step("mutate_deployed_model", f"change scaling of {title}", request, version)
    split = {by_version[t].id: d.traffic for t, d in wanted.items() if d.traffic}
    if split != state.split():
        shares = ", ".join(f"{t} {d.traffic} %" for t, d in wanted.items())
        request = build.set_traffic(spec, split)
        return Step("update_endpoint", f"set traffic: {shares}", request, version)
    if left:
        twice = left[0].display_name in wanted
        why = "deployed twice" if twice else "no longer in the spec"
        return _undeploy(spec, left[0], version, why)
    return None


def plan_steps(spec: Spec, state: State) -> list[Step]:
    """Every step from ``state`` to what the spec wants. ``state`` is left alone.

    Ids that only the cloud can give are written ``id-of-VERSION``.
    """
    imagined = _copy(spec, state)
    found: list[Step] = []
    while (step := next_step(spec, imagined)) is not None:
        if step in found or len(found) > 500:
            raise VertexError(f"the plan does not end ({step.title} again): report this as a fault")
        found.append(step)
        _imagine(spec, imagined, step)
    return found


def _refuse_during_rollout(state: State) -> None:
    record = None if state.endpoint is None else read_record(dict(state.endpoint.labels))
    titles = {each.id: each.display_name for each in state.deployed()}
    if record is None or record.phase == "done" or record.new not in titles:
        return
    raise VertexError(
        f"a rollout of {titles[record.new]} is under way: end it with llm-gateway deploy vertex "
        "rollout, or take it back with llm-gateway deploy vertex rollback"
    )


def _heaviest_first(missing: dict[str, Deployment]) -> list[tuple[str, Deployment]]:
    return sorted(missing.items(), key=lambda item: -item[1].traffic)


def _undeploy(spec: Spec, deployed: Any, version: str, why: str) -> Step:
    request = build.undeploy_model(spec, deployed.id)
    return Step("undeploy_model", f"undeploy {deployed.display_name} ({why})", request, version)


def _copy(spec: Spec, state: State) -> State:
    if state.endpoint is None:
        return State(None, set(state.models))
    return State(build.types_of(spec.scales_to_zero).Endpoint(state.endpoint), set(state.models))


def _imagine(spec: Spec, state: State, step: Step) -> None:
    request = step.request
    if step.method == "upload_model":
        state.models.add(step.makes or "")
    elif step.method == "create_endpoint":
        state.endpoint = type(request.endpoint)(request.endpoint)
        state.endpoint.name = spec.endpoint_name
    elif step.method == "deploy_model":
        deployed = type(request.deployed_model)(request.deployed_model)
        deployed.id = f"id-of-{deployed.display_name}"
        state.endpoint.deployed_models.append(deployed)
        if request.traffic_split:
            state.endpoint.traffic_split = {deployed.id: 100}
    elif step.method == "undeploy_model":
        gone = request.deployed_model_id
        kept = [each for each in state.endpoint.deployed_models if each.id != gone]
        state.endpoint.deployed_models = kept
        split = {k: v for k, v in state.endpoint.traffic_split.items() if k != gone}
        state.endpoint.traffic_split = split
    elif step.method == "mutate_deployed_model":
        for each in state.endpoint.deployed_models:
            if each.id == request.deployed_model.id:
                _merge(each, request.deployed_model)
    elif step.method == "update_endpoint":
        for path in request.update_mask.paths:
            setattr(state.endpoint, path, getattr(request.endpoint, path))
    else:
        state.endpoint.client_connection_config = request.endpoint.client_connection_config


def _merge(deployed: Any, changed: Any) -> None:
    machine, spot = deployed.dedicated_resources.machine_spec, deployed.dedicated_resources.spot
    deployed.dedicated_resources = changed.dedicated_resources
    deployed.dedicated_resources.machine_spec = machine
    deployed.dedicated_resources.spot = spot
    deployed.disable_container_logging = changed.disable_container_logging
