"""What of an endpoint and its deployed models differs from the spec, and can be changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.vertex import VertexError
from deploy.vertex import requests as build
from deploy.vertex.spec import Deployment, Spec


def endpoint_changes(spec: Spec, endpoint: Any) -> Iterator[tuple[str, str, Any]]:
    """Method, title and request of each change. Raises VertexError for what is immutable."""
    _check_access(spec, endpoint)
    types = build.types_of(spec.scales_to_zero)
    changed, paths = types.Endpoint(name=spec.endpoint_name), []
    labels = dict(endpoint.labels)
    if any(labels.get(key) != value for key, value in spec.all_labels.items()):
        # Labels that the spec does not know are others' and stay.
        changed.labels = {**labels, **spec.all_labels}
        paths.append("labels")
    if endpoint.display_name != spec.name:
        changed.display_name = spec.name
        paths.append("display_name")
    if not _same_logging(spec, endpoint):
        changed.predict_request_response_logging_config = (
            build.request_logging(spec) or types.PredictRequestResponseLoggingConfig()
        )
        paths.append("predict_request_response_logging_config")
    if paths:
        request = types.UpdateEndpointRequest(endpoint=changed, update_mask={"paths": paths})
        yield "update_endpoint", f"change the endpoint's {', '.join(paths)}", request
    timeout = int(endpoint.client_connection_config.inference_timeout.total_seconds())
    if spec.endpoint.access != "shared" and timeout != spec.endpoint.inference_timeout_s:
        request = types.UpdateEndpointLongRunningRequest(
            endpoint=types.Endpoint(
                name=spec.endpoint_name, client_connection_config=build.client_connection(spec)
            )
        )
        title = f"change inference_timeout_s from {timeout} to {spec.endpoint.inference_timeout_s}"
        yield "update_endpoint_long_running", title, request


def resource_changes(spec: Spec, deployment: Deployment, deployed: Any) -> Any:
    """``MutateDeployedModelRequest`` for what differs, or None."""
    types = build.types_of(spec.scales_to_zero)
    wanted, there = build.deployed_model(spec, deployment), deployed
    ours, theirs = wanted.dedicated_resources, there.dedicated_resources
    names = ("min_replica_count", "max_replica_count", "required_replica_count")
    different = [name for name in names if getattr(ours, name) != getattr(theirs, name)]
    if _targets(ours) != _targets(theirs):
        different.append("autoscaling_metric_specs")
    paths = [f"dedicated_resources.{name}" for name in different]
    if wanted.disable_container_logging != there.disable_container_logging:
        paths.append("disable_container_logging")
    if not paths:
        return None
    resources = types.DedicatedResources(
        **{name: getattr(ours, name) for name in (*names, "autoscaling_metric_specs")}
    )
    return types.MutateDeployedModelRequest(
        endpoint=spec.endpoint_name,
        deployed_model=types.DeployedModel(
            id=deployed.id,
            dedicated_resources=resources,
            disable_container_logging=wanted.disable_container_logging,
        ),
        update_mask={"paths": paths},
    )


def _targets(resources: Any) -> dict[str, int]:
    return {each.metric_name: each.target for each in resources.autoscaling_metric_specs}


def _same_logging(spec: Spec, endpoint: Any) -> bool:
    there, wanted = endpoint.predict_request_response_logging_config, build.request_logging(spec)
    if wanted is None or not there.enabled:
        return wanted is None and not there.enabled
    return bool(
        wanted.bigquery_destination.output_uri == there.bigquery_destination.output_uri
        and abs(wanted.sampling_rate - there.sampling_rate) < 1e-6
    )


def _check_access(spec: Spec, endpoint: Any) -> None:
    connect = endpoint.private_service_connect_config
    private = connect.enable_private_service_connect
    there = "private" if private else "shared"
    if endpoint.dedicated_endpoint_enabled:
        there = "dedicated"
    wanted = spec.endpoint.access
    fix = "set another name (or endpoint.id) in the spec, apply, and destroy this one"
    if there != wanted:
        raise VertexError(f"{spec.endpoint_name} is {there} and cannot become {wanted}: {fix}")
    if private and set(connect.project_allowlist) != set(spec.endpoint.private_projects):
        raise VertexError(
            f"private_projects of {spec.endpoint_name} are "
            f"{', '.join(connect.project_allowlist)} and cannot change: {fix}"
        )
