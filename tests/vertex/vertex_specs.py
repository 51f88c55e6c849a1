"""Specs for tests, and the commands' functions called with them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Self

from deploy.vertex.client import open_cloud
from deploy.vertex.run import apply
from deploy.vertex.spec import Spec, load_spec
from deploy.vertex.state import read_state
from deploy.vertex.steps import Step, plan_steps

IMAGE = "us-central1-docker.pkg.dev/my-project/serving/llm-gateway:1.0.0"
SMALLEST: dict[str, Any] = {
    "project": "my-project",
    "region": "us-central1",
    "name": "chat",
    "deployments": [
        {
            "name": "llama",
            "image": IMAGE,
            "environment": {"MODEL_NAME": "bundled"},
            "machine": {"type": "g2-standard-12", "accelerator": "NVIDIA_L4", "count": 1},
            "scaling": {"max_replicas": 4, "targets": {"vllm_requests_waiting": 5}},
        }
    ],
}


def changed(**paths: Any) -> dict[str, Any]:
    """``SMALLEST`` with values set at paths, written a__b; numbers are positions in lists.

    None removes.
    """
    found = copy.deepcopy(SMALLEST)
    for path, value in paths.items():
        *above, last = path.split("__")
        place: Any = found
        for part in above:
            place = place[int(part)] if part.isdigit() else place.setdefault(part, {})
        if value is None:
            del place[last]
        elif last.isdigit() and int(last) == len(place):
            place.append(value)
        else:
            place[int(last) if last.isdigit() else last] = value
    return found


def two_deployments(first: int = 90, second: int = 10) -> dict[str, Any]:
    """The smallest with a second deployment on the same endpoint."""
    other = {**copy.deepcopy(SMALLEST["deployments"][0]), "name": "qwen", "traffic": second}
    return changed(deployments__0__traffic=first, deployments__1=other)


class Workbench:
    """The emulator and a folder for specs.

    Attributes:
        told: every line of progress so far.
    """

    def __init__(self, emulator: Any, folder: Path) -> None:
        self.emulator, self.folder = emulator, folder
        self.told: list[str] = []
        self.file = folder / "spec.yaml"
        self.spec: Spec
        self.use(SMALLEST)
        self.cloud = open_cloud(self.spec)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cloud.__exit__()

    def use(self, content: dict[str, Any]) -> Spec:
        """Go by this spec from now on. JSON is YAML."""
        self.file.write_text(json.dumps(content), encoding="utf-8")
        self.spec = load_spec(self.file)
        return self.spec

    def apply(self) -> list[str]:
        """Titles of the steps that it took."""
        return [step.title for step in apply(self.cloud, self.spec, self.told.append)]

    def plan(self) -> list[Step]:
        return plan_steps(self.spec, read_state(self.cloud, self.spec))

    @property
    def endpoint(self) -> dict[str, Any]:
        """The one endpoint of the spec as it is in the cloud."""
        found: dict[str, Any] = self.emulator.snapshot()["endpoints"][self.spec.endpoint_name]
        return found
