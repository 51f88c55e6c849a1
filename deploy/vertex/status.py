"""What runs, who gets the traffic, and where to call it."""

from __future__ import annotations

from typing import Any

from deploy.vertex import VertexError
from deploy.vertex.client import Cloud
from deploy.vertex.requests import types_of
from deploy.vertex.spec import Spec
from deploy.vertex.state import read_endpoint


def read_status(cloud: Cloud, spec: Spec) -> dict[str, Any]:
    """The endpoint with its deployed models, as plain values. Raises VertexError without one."""
    endpoint = read_endpoint(cloud, spec)
    if endpoint is None:
        raise VertexError(
            f"there is no endpoint {spec.endpoint_name}: llm-gateway deploy vertex apply makes it"
        )
    types = types_of(spec.scales_to_zero)
    return {
        "endpoint": endpoint.name,
        "display_name": endpoint.display_name,
        "mode": spec.mode,
        "deployed": [
            _deployed(types, each, endpoint.traffic_split.get(each.id, 0))
            for each in endpoint.deployed_models
        ],
        **addresses(spec, endpoint),
    }


def addresses(spec: Spec, endpoint: Any) -> dict[str, str]:
    """Where the endpoint is called; ``openai_base_url`` only where the OpenAI SDK works."""
    host = endpoint.dedicated_endpoint_dns or f"{spec.region}-aiplatform.googleapis.com"
    found = {}
    if spec.endpoint.access == "private":
        attachments = [
            each.private_endpoints.service_attachment
            for each in endpoint.deployed_models
            if each.private_endpoints.service_attachment
        ]
        found["service_attachment"] = attachments[0] if attachments else ""
        host = "$PSC_IP"
    url = f"https://{host}/v1/{endpoint.name}"
    if spec.mode == "invoke":
        return {**found, "url": f"{url}/invoke", "openai_base_url": f"{url}/invoke/v1"}
    return {**found, "url": f"{url}:predict"}


def _deployed(types: Any, deployed: Any, traffic: int) -> dict[str, Any]:
    resources = deployed.dedicated_resources
    machine = resources.machine_spec
    found = {
        "version": deployed.display_name,
        "id": deployed.id,
        "model": deployed.model,
        "traffic": traffic,
        "machine": machine.machine_type,
        "replicas": deployed.status.available_replica_count,
        "min_replicas": resources.min_replica_count,
        "max_replicas": resources.max_replica_count,
        "spot": resources.spot,
        "message": deployed.status.message,
    }
    if machine.accelerator_count:
        found["accelerator"] = types.AcceleratorType(machine.accelerator_type).name
        found["accelerator_count"] = machine.accelerator_count
    return found
