"""What the emulated Vertex AI holds, and what its methods do to it."""

from __future__ import annotations

import itertools
import re
from typing import Any

from google.cloud import aiplatform_v1, aiplatform_v1beta1
from vertex_emulated_checks import (
    Refused,
    camel,
    check_resources,
    check_split,
    matches,
    only,
    packed,
    parse,
    show,
)

TYPES = {"v1": aiplatform_v1.types, "v1beta1": aiplatform_v1beta1.types}
EMPTY = {"@type": "type.googleapis.com/google.protobuf.Empty"}
MUTABLE = {
    "dedicatedResources.minReplicaCount",
    "dedicatedResources.maxReplicaCount",
    "dedicatedResources.requiredReplicaCount",
    "dedicatedResources.autoscalingMetricSpecs",
    "disableContainerLogging",
}
LOGGING = "predictRequestResponseLoggingConfig"
UPDATABLE = {"displayName", "description", "labels", "trafficSplit", LOGGING}


class Rules:
    """Models (messages of v1) and endpoints (of v1beta1, which has all fields), by name."""

    def __init__(self, quota: dict[str, int]) -> None:
        self.models: dict[str, Any] = {}
        self.endpoints: dict[str, Any] = {}
        self.begun: set[str] = set()
        self.ids = itertools.count(7001)
        self.quota = quota

    def snapshot(self) -> dict[str, Any]:
        """Models and endpoints without times, and ids of deployed models by their names."""
        endpoints = {}
        for name, endpoint in self.endpoints.items():
            titles = {each.id: each.display_name for each in endpoint.deployed_models}
            shown = show(endpoint)
            shown["trafficSplit"] = {titles[k]: v for k, v in endpoint.traffic_split.items()}
            for each in shown.get("deployedModels", []):
                del each["id"], each["createTime"]
            shown.get("deployedModels", []).sort(key=lambda each: each["displayName"])
            del shown["createTime"]
            endpoints[name] = shown
        return {"models": {n: show(m) for n, m in self.models.items()}, "endpoints": endpoints}

    def call(self, seen: Any, version: str, begin: Any) -> dict[str, Any]:
        """Carry a request out, or begin to. Raises Refused and ParseError."""
        handler = getattr(self, f"_{seen.method}", None)
        if handler is None:
            raise Refused(404, f"{seen.verb} {seen.path} is no method here")
        found: dict[str, Any] = handler(seen, version, begin)
        return found

    def _uploadModel(self, seen: Any, version: str, begin: Any) -> dict[str, Any]:  # noqa: N802
        parent = seen.path.removesuffix("/models:upload")
        request = parse(TYPES[version].UploadModelRequest, {"parent": parent, **seen.body})
        model, container = request.model, request.model.container_spec
        if container.predict_route and container.invoke_route_prefix:
            raise Refused(400, "only one of predict_route and invoke_route_prefix can be set")
        if container.invoke_route_prefix not in ("", "/*"):
            raise Refused(400, "invoke_route_prefix has to be /*")
        if container.deployment_timeout.seconds > 7200:
            raise Refused(400, "deployment_timeout is at most 2 hours")
        region = parent.rsplit("/", 1)[-1]
        if not container.image_uri.startswith(f"{region}-docker.pkg.dev/"):
            raise Refused(400, f"the image has to be in Artifact Registry of {region}")
        if any(each.name.startswith("AIP_") for each in container.env):
            raise Refused(400, "AIP_* is reserved")
        if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,62}", request.model_id):
            raise Refused(400, f"model_id {request.model_id!r} is not valid")
        name = f"{parent}/models/{request.model_id}"
        self._is_new(name)

        def complete() -> dict[str, Any]:
            model.name, model.version_id = name, "1"
            model.supported_deployment_resources_types.append(1)
            self.models[name] = model
            kind = TYPES[version].UploadModelResponse
            return packed(kind.pb(kind(model=name, model_version_id="1")))

        return begin(name, seen.method, complete)

    def _is_new(self, name: str) -> None:
        if name in self.begun:
            raise Refused(409, f"{name} already exists")
        self.begun.add(name)

    def _createEndpoint(self, seen: Any, version: str, begin: Any) -> dict[str, Any]:  # noqa: N802
        parent = seen.path.removesuffix("/endpoints")
        endpoint = parse(TYPES[version].Endpoint, seen.body)
        number = seen.query.get("endpointId", "")
        if not re.fullmatch(r"[1-9]\d{0,8}|[a-z]([a-z0-9-]{0,61}[a-z0-9])?", number):
            raise Refused(400, f"endpoint_id {number!r} is not valid")
        if endpoint.deployed_models or endpoint.traffic_split:
            raise Refused(400, "a new endpoint has no deployed models")
        connect = endpoint.private_service_connect_config
        if endpoint.dedicated_endpoint_enabled and connect.enable_private_service_connect:
            raise Refused(400, "dedicated and Private Service Connect exclude each other")
        name = f"{parent}/endpoints/{number}"
        self._is_new(name)
        region = parent.rsplit("/", 1)[-1]

        def complete() -> dict[str, Any]:
            kept = parse(TYPES["v1beta1"].Endpoint, show(endpoint))
            kept.name = name
            kept.create_time.GetCurrentTime()
            if kept.dedicated_endpoint_enabled:
                kept.dedicated_endpoint_dns = f"{number}.{region}-4711.prediction.vertexai.goog"
            self.endpoints[name] = kept
            return packed(self._endpoint_in(name, version))

        return begin(name, seen.method, complete)

    def _endpoint_in(self, name: str, version: str) -> Any:
        return parse(TYPES[version].Endpoint, show(self.endpoints[name]), lenient=True)

    def _endpoint(self, seen: Any) -> Any:
        name = seen.path.partition(":")[0]
        if name not in self.endpoints:
            raise Refused(404, f"Endpoint {name} is not found")
        return self.endpoints[name]

    def _model(self, seen: Any) -> Any:
        name = seen.path.partition("@")[0]
        if name not in self.models:
            raise Refused(404, f"Model {name} is not found")
        return self.models[name]

    def _getEndpoint(self, seen: Any, version: str, _: Any) -> dict[str, Any]:  # noqa: N802
        return show(self._endpoint_in(self._endpoint(seen).name, version))

    def _getModel(self, seen: Any, _: str, __: Any) -> dict[str, Any]:  # noqa: N802
        return show(self._model(seen))

    def _listModels(self, seen: Any, _: str, __: Any) -> dict[str, Any]:  # noqa: N802
        return {"models": [show(m) for m in self.models.values() if matches(m, seen.query)]}

    def _listEndpoints(self, seen: Any, version: str, _: Any) -> dict[str, Any]:  # noqa: N802
        found = [n for n, e in self.endpoints.items() if matches(e, seen.query)]
        return {"endpoints": [show(self._endpoint_in(name, version)) for name in found]}

    def _updateEndpoint(self, seen: Any, version: str, _: Any) -> dict[str, Any]:  # noqa: N802
        endpoint, new = self._endpoint(seen), parse(TYPES[version].Endpoint, seen.body)
        mask = set(seen.query.get("updateMask", "").split(","))
        if not mask or mask - UPDATABLE:
            raise Refused(400, f"update_mask {sorted(mask)} cannot be updated")
        if "trafficSplit" in mask:
            check_split(new.traffic_split, {each.id for each in endpoint.deployed_models})
        for path in mask:
            field = re.sub("([A-Z])", lambda m: "_" + m[1].lower(), path)
            endpoint.ClearField(field)
        endpoint.MergeFrom(parse(TYPES["v1beta1"].Endpoint, only(show(new), mask)))
        return show(self._endpoint_in(endpoint.name, version))

    def _updateEndpointLongRunning(self, seen: Any, version: str, begin: Any) -> Any:  # noqa: N802
        endpoint = self._endpoint(seen)
        request = parse(TYPES[version].UpdateEndpointLongRunningRequest, seen.body)
        new = show(request.endpoint)
        if set(new) - {"name", "clientConnectionConfig"}:
            raise Refused(400, "only client_connection_config can be updated")

        def complete() -> dict[str, Any]:
            endpoint.ClearField("client_connection_config")
            changed = only(new, {"clientConnectionConfig"})
            endpoint.MergeFrom(parse(TYPES["v1beta1"].Endpoint, changed))
            return packed(self._endpoint_in(endpoint.name, version))

        return begin(endpoint.name, seen.method, complete)

    def _deployModel(self, seen: Any, version: str, begin: Any) -> dict[str, Any]:  # noqa: N802
        endpoint = self._endpoint(seen)
        request = parse(TYPES[version].DeployModelRequest, seen.body)
        new, split = request.deployed_model, dict(request.traffic_split)
        model = self.models.get(new.model.partition("@")[0])
        if model is None:
            raise Refused(404, f"Model {new.model} is not found")
        check_resources(new.dedicated_resources, endpoint, version)
        if model.container_spec.invoke_route_prefix and not endpoint.dedicated_endpoint_enabled:
            raise Refused(400, "invoke_route_prefix needs a dedicated endpoint")
        if not endpoint.deployed_models and split != {"0": 100}:
            raise Refused(400, "the first deployed model takes all of the traffic")
        known = {each.id for each in endpoint.deployed_models}
        if split:
            check_split(split, known | {"0"})
        self._check_quota(new.dedicated_resources)
        kept = parse(TYPES["v1beta1"].DeployedModel, show(new), lenient=True)

        def complete() -> dict[str, Any]:
            kept.id = kept.id or str(next(self.ids))
            kept.create_time.GetCurrentTime()
            kept.status.available_replica_count = kept.dedicated_resources.min_replica_count
            endpoint.deployed_models.append(kept)
            if split:
                endpoint.traffic_split.clear()
                for key, share in split.items():
                    endpoint.traffic_split[kept.id if key == "0" else key] = share
            kind = TYPES[version].DeployModelResponse
            body = {"deployedModel": show(kept)}
            return packed(parse(kind, body, lenient=True))

        return begin(endpoint.name, seen.method, complete)

    def _check_quota(self, resources: Any) -> None:
        kind = aiplatform_v1.AcceleratorType(resources.machine_spec.accelerator_type).name
        asked = resources.machine_spec.accelerator_count * resources.max_replica_count
        if asked > self.quota.get(kind, asked):
            raise Refused(
                429,
                "The following quotas are exceeded: "
                f"CustomModelServing{kind.replace('NVIDIA_', '')}GPUsPerProjectPerRegion",
            )

    def _undeployModel(self, seen: Any, version: str, begin: Any) -> dict[str, Any]:  # noqa: N802
        endpoint = self._endpoint(seen)
        request = parse(TYPES[version].UndeployModelRequest, seen.body)
        gone = request.deployed_model_id
        if gone not in {each.id for each in endpoint.deployed_models}:
            raise Refused(404, f"DeployedModel {gone} is not found")
        if len(endpoint.deployed_models) > 1 and endpoint.traffic_split.get(gone, 0):
            raise Refused(400, f"DeployedModel {gone} still has traffic")

        def complete() -> dict[str, Any]:
            kept = [each for each in endpoint.deployed_models if each.id != gone]
            del endpoint.deployed_models[:]
            endpoint.deployed_models.extend(kept)
            endpoint.traffic_split.pop(gone, None)
            kind = TYPES[version].UndeployModelResponse
            return packed(kind.pb(kind()))

        return begin(endpoint.name, seen.method, complete)

    def _mutateDeployedModel(self, seen: Any, version: str, begin: Any) -> Any:  # noqa: N802
        endpoint = self._endpoint(seen)
        request = parse(TYPES[version].MutateDeployedModelRequest, seen.body)
        mask = {camel(path) for path in request.update_mask.paths}
        if not mask or mask - MUTABLE:
            raise Refused(400, f"update_mask {sorted(mask - MUTABLE)} cannot be mutated")
        new = request.deployed_model
        kept = next((each for each in endpoint.deployed_models if each.id == new.id), None)
        if kept is None:
            raise Refused(404, f"DeployedModel {new.id} is not found")

        def complete() -> dict[str, Any]:
            if "disableContainerLogging" in mask:
                kept.disable_container_logging = new.disable_container_logging
            ours, theirs = kept.dedicated_resources, new.dedicated_resources
            for name in ("min_replica_count", "max_replica_count", "required_replica_count"):
                if camel(f"dedicated_resources.{name}") in mask:
                    setattr(ours, name, getattr(theirs, name))
            if "dedicatedResources.autoscalingMetricSpecs" in mask:
                del ours.autoscaling_metric_specs[:]
                for each in theirs.autoscaling_metric_specs:
                    ours.autoscaling_metric_specs.add(
                        metric_name=each.metric_name, target=each.target
                    )
            kind = TYPES[version].MutateDeployedModelResponse
            return packed(kind.pb(kind()))

        return begin(endpoint.name, seen.method, complete)

    def _deleteEndpoint(self, seen: Any, _: str, begin: Any) -> dict[str, Any]:  # noqa: N802
        endpoint = self._endpoint(seen)
        if endpoint.deployed_models:
            raise Refused(400, "the endpoint has deployed models: undeploy them first")

        def complete() -> dict[str, Any]:
            self.endpoints.pop(endpoint.name, None)
            self.begun.discard(endpoint.name)
            return EMPTY

        return begin(endpoint.name, seen.method, complete)

    def _deleteModel(self, seen: Any, _: str, begin: Any) -> dict[str, Any]:  # noqa: N802
        name = self._model(seen).name
        if any(e.model == name for p in self.endpoints.values() for e in p.deployed_models):
            raise Refused(400, f"{name} is deployed")

        def complete() -> dict[str, Any]:
            self.models.pop(name, None)
            self.begun.discard(name)
            return EMPTY

        return begin(name, seen.method, complete)
