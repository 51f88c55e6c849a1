"""What there is in the cloud of a spec, and operations that are still under way."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from deploy.vertex import VertexError
from deploy.vertex.client import Cloud
from deploy.vertex.errors import AGAIN, explained, operation_error
from deploy.vertex.requests import model_name
from deploy.vertex.spec import Spec

CALL_S = 120.0
_FAILED_LOOKS = 9
Progress = Callable[[str], None]


@dataclass(slots=True)
class State:
    """What exists. ``endpoint`` is the API's message, None where there is none; ``models`` are
    full names of those of the spec that are in the registry."""

    endpoint: Any = None
    models: set[str] = field(default_factory=set)

    def deployed(self) -> list[Any]:
        """The endpoint's ``DeployedModel`` messages."""
        return [] if self.endpoint is None else list(self.endpoint.deployed_models)

    def by_version(self) -> dict[str, Any]:
        """The same by their display names, which are those of versions. Of two that are the same
        version, as two operators at once may make, the one with traffic."""
        split = self.split()
        order = sorted(self.deployed(), key=lambda each: (split.get(each.id, 0), each.id))
        return {each.display_name: each for each in order}

    def split(self) -> dict[str, int]:
        """Percent by id of those deployed models that get any."""
        found = {} if self.endpoint is None else dict(self.endpoint.traffic_split)
        return {key: share for key, share in found.items() if share}


def read_state(cloud: Cloud, spec: Spec) -> State:
    """Read everything. Raises VertexError, also for an endpoint that is somebody else's."""
    with explained("reading what exists"):
        models = cloud.models()
        names = {model_name(spec, each) for each in spec.deployments}
        found = {name for name in names if _exists(models.get_model, name)}
        endpoint = read_endpoint(cloud, spec)
    return State(endpoint, found)


def read_endpoint(cloud: Cloud, spec: Spec) -> Any:
    """The spec's endpoint, or None. Raises VertexError where it is not this tool's."""
    from google.api_core.exceptions import NotFound

    with explained("reading the endpoint"):
        try:
            client = cloud.endpoints(spec.scales_to_zero)
            endpoint = client.get_endpoint(name=spec.endpoint_name, timeout=CALL_S)
        except NotFound:
            return None
    labels = dict(endpoint.labels)
    if labels.get("managed-by") != "llm-gateway" or labels.get("deployment") != spec.name:
        raise VertexError(
            f"{spec.endpoint_name} exists and was not made for {spec.name} by this tool: set "
            "endpoint.id in the spec to another number"
        )
    return endpoint


def list_models(cloud: Cloud, spec: Spec) -> list[Any]:
    """Every model that was uploaded for the spec's name, older versions too."""
    terms = f"labels.managed-by=llm-gateway AND labels.deployment={spec.name}"
    with explained("listing models"):
        request = {"parent": spec.parent, "filter": terms}
        return sorted(
            cloud.models().list_models(request=request, timeout=CALL_S), key=lambda m: m.name
        )


def _exists(get: Any, name: str) -> bool:
    from google.api_core.exceptions import NotFound

    try:
        get(name=name, timeout=CALL_S)
    except NotFound:
        return False
    return True


def wait_for_earlier(cloud: Cloud, spec: Spec, names: set[str], progress: Progress) -> None:
    """Wait for operations on the endpoint and the models ``names`` that an earlier run began.

    How they end is of no matter: what exists is read afterwards. Raises VertexError.
    """
    endpoints, models = cloud.endpoints(spec.scales_to_zero), cloud.models()
    for client, name in ((endpoints, spec.endpoint_name), *((models, n) for n in sorted(names))):
        for operation in _under_way(client, name):
            doing = f"waiting for {operation.name.rsplit('/', 1)[-1]}, begun earlier"
            try:
                wait(cloud, client, operation.name, doing, progress)
            except VertexError as error:
                progress(f"that operation failed: {error}")


def _under_way(client: Any, name: str) -> list[Any]:
    from google.api_core.exceptions import NotFound

    with explained("listing operations under way"):
        try:
            found = client.list_operations({"name": name}, timeout=CALL_S)
        except NotFound:
            return []
        return [each for each in found.operations if not each.done]


def wait(
    cloud: Cloud,
    client: Any,
    operation: str,
    doing: str,
    progress: Progress,
    limit_s: float = 3 * 3600.0,
) -> None:
    """Poll an operation until it is done. Raises VertexError when it fails, or takes too long."""
    begun = time.monotonic()
    with explained(doing):
        while True:
            found = _look(cloud, client, operation)
            if found.done:
                break
            passed = time.monotonic() - begun
            if passed > limit_s:
                raise VertexError(f"{doing}: not done after {limit_s:.0f} s: {AGAIN}")
            minutes = f", {passed / 60:.0f} min" if passed >= 60 else ""
            progress(f"{doing}{stage(found)}{minutes}")
            time.sleep(cloud.poll_s)
        if found.HasField("error"):
            raise operation_error(found.error)


def _look(cloud: Cloud, client: Any, operation: str) -> Any:
    """One look at an operation. It may take an hour, so that single failures are passed over."""
    from google.api_core.exceptions import ServerError

    for _ in range(_FAILED_LOOKS):
        try:
            return client.get_operation({"name": operation}, timeout=CALL_S)
        except (ServerError, OSError):
            time.sleep(cloud.poll_s)
    return client.get_operation({"name": operation}, timeout=CALL_S)


def stage(operation: Any) -> str:
    """How far a deployment is, where Vertex AI tells: `` preparing the model``, or nothing."""
    from google.cloud.aiplatform_v1.types import DeployModelOperationMetadata

    kind = DeployModelOperationMetadata
    metadata = kind.pb(kind())
    # A name of v1beta1 unpacks as v1's does: the fields are the same.
    if operation.metadata.type_url.endswith(".DeployModelOperationMetadata"):
        metadata.ParseFromString(operation.metadata.value)
        told = str(kind.wrap(metadata).deployment_stage.name)
        if told and told != "DEPLOYMENT_STAGE_UNSPECIFIED":
            return ", " + told.lower().replace("_", " ")
    return ""
