"""The requests themselves, as the library's own messages. ``plan`` shows what ``apply`` sends.

Scale to zero is in v1beta1 alone; every other field is the same in both versions, so the module
of message types is passed along.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from deploy.vertex.environment import full_environment
from deploy.vertex.spec import Deployment, Spec
from deploy.vertex.spec_parts import Probe, Reservation

HEALTH_ROUTE = "/health/ready"
PREDICT_ROUTE = "/predict"
RESERVATION_KEY = "compute.googleapis.com/reservation-name"
_RESERVATIONS = {"none": "NO_RESERVATION", "any": "ANY_RESERVATION"}


def types_of(beta: bool) -> Any:
    """The message types of v1 or v1beta1."""
    from google.cloud import aiplatform_v1, aiplatform_v1beta1

    return aiplatform_v1beta1.types if beta else aiplatform_v1.types


def as_json(message: Any) -> dict[str, Any]:
    """A message as the REST API writes it."""
    from google.protobuf.json_format import MessageToDict

    found: dict[str, Any] = MessageToDict(type(message).pb(message))
    return found


def version_of(spec: Spec, deployment: Deployment) -> str:
    """``DEPLOYMENT-HASH``: the hash is of everything that cannot change in place, so that the
    same spec always finds what it has made."""
    what = {
        "container": as_json(container(spec, deployment)),
        "artifact": deployment.artifact,
        "machine": deployment.machine.model_dump(),
        "service_account": deployment.service_account,
        "access_logging": deployment.access_logging,
    }
    if deployment.scaling.scale_to_zero is not None:
        what["scale_to_zero"] = deployment.scaling.scale_to_zero.model_dump()
        what["container_logging"] = deployment.container_logging
    text = json.dumps(what, sort_keys=True, separators=(",", ":"))
    return f"{deployment.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def model_id(spec: Spec, deployment: Deployment) -> str:
    """The id of the model in the registry, at most 58 characters."""
    return f"{spec.name}-{version_of(spec, deployment)}"


def model_name(spec: Spec, deployment: Deployment) -> str:
    """The model's full resource name."""
    return f"{spec.parent}/models/{model_id(spec, deployment)}"


def container(spec: Spec, deployment: Deployment) -> Any:
    """The ``ModelContainerSpec``."""
    types = types_of(False)
    environment = full_environment(deployment.environment)
    found = types.ModelContainerSpec(
        image_uri=deployment.image,
        command=_command(deployment),
        args=list(deployment.args),
        env=[types.EnvVar(name=name, value=environment[name]) for name in sorted(environment)],
        ports=[types.Port(container_port=deployment.port)],
        health_route=HEALTH_ROUTE,
        deployment_timeout={"seconds": deployment.deployment_timeout_s},
        shared_memory_size_mb=deployment.shared_memory_mb or 0,
        startup_probe=_probe(deployment.startup_probe, deployment.port),
        health_probe=_probe(deployment.health_probe, deployment.port),
    )
    if spec.mode == "invoke":
        found.invoke_route_prefix = "/*"
    else:
        found.predict_route = PREDICT_ROUTE
    return found


def upload_model(spec: Spec, deployment: Deployment) -> Any:
    """``UploadModelRequest``."""
    types = types_of(False)
    return types.UploadModelRequest(
        parent=spec.parent,
        model_id=model_id(spec, deployment),
        model=types.Model(
            display_name=model_id(spec, deployment),
            artifact_uri=deployment.artifact or "",
            container_spec=container(spec, deployment),
            labels=spec.all_labels,
        ),
        service_account=deployment.service_account or "",
    )


def create_endpoint(spec: Spec) -> Any:
    """``CreateEndpointRequest``."""
    types = types_of(spec.scales_to_zero)
    access = spec.endpoint.access
    endpoint = types.Endpoint(
        display_name=spec.name,
        labels=spec.all_labels,
        dedicated_endpoint_enabled=access == "dedicated",
    )
    if access == "private":
        endpoint.private_service_connect_config = types.PrivateServiceConnectConfig(
            enable_private_service_connect=True,
            project_allowlist=list(spec.endpoint.private_projects),
        )
    if access != "shared":
        endpoint.client_connection_config = client_connection(spec)
    if (logging := request_logging(spec)) is not None:
        endpoint.predict_request_response_logging_config = logging
    return types.CreateEndpointRequest(
        parent=spec.parent, endpoint=endpoint, endpoint_id=spec.endpoint_id
    )


def client_connection(spec: Spec) -> Any:
    """``ClientConnectionConfig``."""
    types = types_of(spec.scales_to_zero)
    return types.ClientConnectionConfig(
        inference_timeout={"seconds": spec.endpoint.inference_timeout_s}
    )


def request_logging(spec: Spec) -> Any:
    """``PredictRequestResponseLoggingConfig``, or None."""
    types, wanted = types_of(spec.scales_to_zero), spec.endpoint.request_logging
    if wanted is None:
        return None
    return types.PredictRequestResponseLoggingConfig(
        enabled=True,
        sampling_rate=wanted.sampling_rate,
        bigquery_destination=types.BigQueryDestination(output_uri=wanted.bigquery),
    )


def deployed_model(spec: Spec, deployment: Deployment) -> Any:
    """The ``DeployedModel`` that a deployment comes to."""
    types = types_of(spec.scales_to_zero)
    return types.DeployedModel(
        model=model_name(spec, deployment),
        display_name=version_of(spec, deployment),
        dedicated_resources=resources(spec, deployment),
        service_account=deployment.service_account or "",
        enable_access_logging=deployment.access_logging,
        disable_container_logging=not deployment.container_logging,
    )


def resources(spec: Spec, deployment: Deployment) -> Any:
    """``DedicatedResources``: the machine and how many of it."""
    types, scaling = types_of(spec.scales_to_zero), deployment.scaling
    machine = deployment.machine
    machine_spec = types.MachineSpec(machine_type=machine.type)
    if machine.accelerator is not None:
        machine_spec.accelerator_type = types.AcceleratorType[machine.accelerator]
        machine_spec.accelerator_count = machine.count or 0
    if machine.reservation is not None:
        machine_spec.reservation_affinity = _reservation(types, machine.reservation)
    found = types.DedicatedResources(
        machine_spec=machine_spec,
        min_replica_count=scaling.min_replicas,
        max_replica_count=scaling.max_replicas,
        required_replica_count=scaling.required_replicas or 0,
        autoscaling_metric_specs=[
            types.AutoscalingMetricSpec(metric_name=metric, target=target)
            for metric, target in scaling.targets.metrics().items()
        ],
        spot=machine.spot,
    )
    if scaling.scale_to_zero is not None:
        found.initial_replica_count = scaling.scale_to_zero.initial_replicas
        found.scale_to_zero_spec = types.DedicatedResources.ScaleToZeroSpec(
            idle_scaledown_period={"seconds": scaling.scale_to_zero.idle_s},
            min_scaleup_period={"seconds": scaling.scale_to_zero.min_scaleup_s},
        )
    return found


def deploy_model(spec: Spec, deployment: Deployment, alone: bool) -> Any:
    """``DeployModelRequest``. Only what is ``alone`` on its endpoint gets traffic at once."""
    return types_of(spec.scales_to_zero).DeployModelRequest(
        endpoint=spec.endpoint_name,
        deployed_model=deployed_model(spec, deployment),
        traffic_split={"0": 100} if alone else {},
    )


def set_traffic(spec: Spec, split: dict[str, int]) -> Any:
    """``UpdateEndpointRequest`` that changes the traffic split alone; keys are ids of deployed
    models, values sum to 100."""
    types = types_of(spec.scales_to_zero)
    return types.UpdateEndpointRequest(
        endpoint=types.Endpoint(name=spec.endpoint_name, traffic_split=split),
        update_mask={"paths": ["traffic_split"]},
    )


def undeploy_model(spec: Spec, deployed_id: str) -> Any:
    """``UndeployModelRequest`` for one that has no traffic, or is the last."""
    return types_of(spec.scales_to_zero).UndeployModelRequest(
        endpoint=spec.endpoint_name, deployed_model_id=deployed_id
    )


def _command(deployment: Deployment) -> list[str]:
    if deployment.artifact is not None and not deployment.command:
        return ["python3", "-m", "deploy.vertex.start"]
    return list(deployment.command)


def _probe(probe: Probe, port: int) -> Any:
    types = types_of(False)
    return types.Probe(
        http_get=types.Probe.HttpGetAction(path=probe.path, port=port),
        period_seconds=probe.period_s,
        timeout_seconds=probe.timeout_s,
        failure_threshold=probe.failures,
        initial_delay_seconds=probe.initial_delay_s,
    )


def _reservation(types: Any, wanted: Reservation) -> Any:
    named = wanted.use == "specific"
    kind = "SPECIFIC_RESERVATION" if named else _RESERVATIONS[wanted.use]
    return types.ReservationAffinity(
        reservation_affinity_type=types.ReservationAffinity.Type[kind],
        key=RESERVATION_KEY if named else "",
        values=list(wanted.names),
    )
