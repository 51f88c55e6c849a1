"""The endpoint's traffic split and the labels beside it, changed in one request."""

from __future__ import annotations

import time
from typing import Any

from deploy.vertex import VertexError
from deploy.vertex import requests as build
from deploy.vertex.client import Cloud
from deploy.vertex.errors import AGAIN, explained
from deploy.vertex.rollout_split import Record, without_record
from deploy.vertex.spec import Spec
from deploy.vertex.state import CALL_S, read_endpoint

_LOOKS = 30


class Traffic:
    """Reads the endpoint anew every time: others may change it meanwhile."""

    def __init__(self, cloud: Cloud, spec: Spec) -> None:
        self._cloud = cloud
        self._spec = spec

    def endpoint(self) -> Any:
        """The API's message. Raises VertexError without one."""
        found = read_endpoint(self._cloud, self._spec)
        if found is None:
            raise VertexError(f"{self._spec.endpoint_name} is not there any more")
        return found

    def split(self) -> dict[str, int]:
        """Percent by id of those that get any."""
        return {key: share for key, share in self.endpoint().traffic_split.items() if share}

    def share(self, key: str) -> int:
        """Percent that one deployed model gets."""
        return self.split().get(key, 0)

    def labels(self) -> dict[str, str]:
        """Of the endpoint."""
        return dict(self.endpoint().labels)

    def titles(self) -> dict[str, str]:
        """Versions by id."""
        return {each.id: each.display_name for each in self.endpoint().deployed_models}

    def id_of(self, version: str) -> str:
        """The id of a version that has just been deployed. Raises VertexError."""
        for _ in range(_LOOKS):
            for key, title in self.titles().items():
                if title == version:
                    return key
            time.sleep(self._cloud.poll_s)
        raise VertexError(f"{version} has been deployed, and Vertex AI does not show it: {AGAIN}")

    def move(self, split: dict[str, int], record: Record) -> None:
        """Set the split and the record together. Raises VertexError."""
        self._update({**without_record(self.labels()), **record.labels()}, split)

    def forget(self) -> None:
        """Remove the record. Raises VertexError."""
        self._update(without_record(self.labels()), None)

    def _update(self, labels: dict[str, str], split: dict[str, int] | None) -> None:
        types = build.types_of(False)
        paths = ["labels"] if split is None else ["labels", "traffic_split"]
        endpoint = types.Endpoint(
            name=self._spec.endpoint_name, labels=labels, traffic_split=split or {}
        )
        request = types.UpdateEndpointRequest(endpoint=endpoint, update_mask={"paths": paths})
        client = self._cloud.endpoints()
        with explained("setting the traffic"):
            client.update_endpoint(request=request, timeout=CALL_S)
        if split is not None:
            self._wait_for(split)

    def _wait_for(self, split: dict[str, int]) -> None:
        for _ in range(_LOOKS):
            if self.split() == split:
                return
            time.sleep(self._cloud.poll_s)
        raise VertexError(f"the traffic has been set, and Vertex AI does not show it: {AGAIN}")
