"""Take everything of a spec away again, in the order in which the cloud lets go of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.vertex import requests as build
from deploy.vertex.client import Cloud
from deploy.vertex.run import run_step
from deploy.vertex.spec import Spec
from deploy.vertex.state import Progress, list_models, read_endpoint, wait_for_earlier
from deploy.vertex.steps import Step


@dataclass(frozen=True, slots=True)
class Doomed:
    """What ``destroy`` removes: messages of the API."""

    endpoint: Any
    models: list[Any]

    def lines(self) -> list[str]:
        """One line for each thing, in the order in which it goes."""
        found = []
        if self.endpoint is not None:
            split = self.endpoint.traffic_split
            found += [
                f"deployed model {each.display_name} ({split.get(each.id, 0)} % of the traffic)"
                for each in self.endpoint.deployed_models
            ]
            found.append(f"endpoint {self.endpoint.display_name} ({self.endpoint.name})")
        return found + [f"model {each.display_name} ({each.name})" for each in self.models]


def find_doomed(cloud: Cloud, spec: Spec) -> Doomed:
    """The endpoint and every model that carry the spec's labels. Raises VertexError."""
    return Doomed(read_endpoint(cloud, spec), list_models(cloud, spec))


def destroy(cloud: Cloud, spec: Spec, progress: Progress) -> None:
    """Remove it all; what an earlier run has removed is passed over. Raises VertexError."""
    wait_for_earlier(cloud, spec, {each.name for each in list_models(cloud, spec)}, progress)
    while (step := _next(spec, find_doomed(cloud, spec))) is not None:
        progress(step.title)
        run_step(cloud, step, progress)


def _next(spec: Spec, doomed: Doomed) -> Step | None:
    version, types = "v1beta1" if spec.scales_to_zero else "v1", build.types_of(spec.scales_to_zero)
    if (endpoint := doomed.endpoint) is not None:
        if not endpoint.deployed_models:
            request = types.DeleteEndpointRequest(name=endpoint.name)
            return Step("delete_endpoint", f"delete {endpoint.name}", request, version)
        split = endpoint.traffic_split
        # What has traffic goes last: only the last one may go with traffic left.
        deployed = min(endpoint.deployed_models, key=lambda each: (split.get(each.id, 0), each.id))
        request = build.undeploy_model(spec, deployed.id)
        with_traffic = [each.id for each in endpoint.deployed_models if split.get(each.id, 0)]
        if deployed.id in with_traffic and len(endpoint.deployed_models) > 1:
            heaviest = max(with_traffic, key=lambda key: split[key])
            shift = build.set_traffic(spec, {heaviest: 100})
            return Step("update_endpoint", "take all traffic to one model", shift, version)
        return Step("undeploy_model", f"undeploy {deployed.display_name}", request, version)
    if doomed.models:
        name = doomed.models[0].name
        request = build.types_of(False).DeleteModelRequest(name=name)
        return Step("delete_model", f"delete {name}", request)
    return None
