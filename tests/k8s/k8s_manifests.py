"""Reads k8s/: as files, and as kubectl renders them, or as it did when rendered.json was recorded.

After a change of k8s/, on a machine with kubectl: python tests/k8s/k8s_manifests.py
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import kubernetes_validate.utils
import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
COMPONENTS = sorted(path.parent for path in K8S.glob("components/*/kustomization.yaml"))
OVERLAYS = sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml"))
# Components that no overlay uses are rendered here.
TEST_ONLY = sorted(
    path.parent for path in Path(__file__).parent.glob("kustomizations/*/kustomization.yaml")
)
RENDERED = {path.name: path for path in [*OVERLAYS, *TEST_ONLY]}

OLDEST, NEWEST = "1.29", "1.37"
# It reads megabytes of definitions anew for every object.
kubernetes_validate.utils.schema_contents = functools.cache(
    kubernetes_validate.utils.schema_contents
)

# Kinds of others, which have a schema in schemas/; any further one fails.
CUSTOM = {
    "ScaledObject": "keda.sh/v1alpha1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "PodMonitoring": "monitoring.googleapis.com/v1",
    "InferencePool": "inference.networking.k8s.io/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "LeaderWorkerSet": "leaderworkerset.x-k8s.io/v1",
}

Object = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """Pods that are alike: of a Deployment, or of one side of a LeaderWorkerSet."""

    kind: str
    name: str
    namespace: str
    labels: Mapping[str, str]
    pod: Object
    replicas: int | None = None

    @property
    def container(self) -> Object:
        (only,) = self.pod["containers"]
        return dict(only)

    @property
    def serves(self) -> bool:
        """Whether it is the gateway, and not a worker of vLLM without a server."""
        return self.container["name"] == "gateway"

    @property
    def gpus(self) -> int:
        return int(self.container["resources"].get("limits", {}).get("nvidia.com/gpu", 0))

    def ports(self) -> dict[str, int]:
        return {port["name"]: port["containerPort"] for port in self.container.get("ports", [])}

    def has_labels(self, wanted: Mapping[str, str]) -> bool:
        return all(self.labels.get(key) == value for key, value in wanted.items())


class Manifests:
    """All objects of one deployment."""

    def __init__(self, objects: list[Object]) -> None:
        self.objects = objects

    def of(self, kind: str) -> list[Object]:
        return [item for item in self.objects if item["kind"] == kind]

    def named(self, kind: str, name: str) -> Object | None:
        return next((item for item in self.of(kind) if item["metadata"]["name"] == name), None)

    def get(self, kind: str, name: str) -> Object:
        found = self.named(kind, name)
        assert found is not None, f"no {kind} {name}"
        return found

    def copy(self) -> Manifests:
        return Manifests(copy.deepcopy(self.objects))

    def workloads(self) -> list[Workload]:
        return [workload for item in self.objects for workload in workloads_of(item)]


def workloads_of(item: Object) -> Iterator[Workload]:
    meta, spec = item["metadata"], item.get("spec", {})
    if item["kind"] == "Deployment":
        sides = [("", spec["template"])]
    elif item["kind"] == "LeaderWorkerSet":
        group = spec["leaderWorkerTemplate"]
        sides = [("", group["leaderTemplate"]), ("-worker", group["workerTemplate"])]
    else:
        return
    for suffix, template in sides:
        labels = dict(template["metadata"]["labels"])
        if item["kind"] == "LeaderWorkerSet":  # what its controller adds
            labels["leaderworkerset.sigs.k8s.io/name"] = meta["name"]
        yield Workload(
            item["kind"],
            meta["name"] + suffix,
            meta["namespace"],
            labels,
            template["spec"],
            spec.get("replicas"),
        )


# Programs that render, with what their versions are found by.
RENDERERS = (
    (["kubectl", "kustomize"], ["kubectl", "version", "--client"], r"Kustomize Version: v([\d.]+)"),
    (["kustomize", "build"], ["kustomize", "version"], r"v([\d.]+)"),
)
NO_RENDERER = "neither kubectl (1.27 or newer) nor kustomize 5 is installed"
RECORD = Path(__file__).with_name("rendered.json")


@functools.cache
def renderer() -> tuple[tuple[str, ...], str] | None:
    """The command that renders a folder with kustomize 5, and its version; or None."""
    for command, asked, version in RENDERERS:
        if shutil.which(command[0]) is not None:
            told = subprocess.run(asked, capture_output=True, text=True, timeout=120).stdout
            if (found := re.search(version, told)) is not None and found[1].startswith("5."):
                return tuple(command), found[1]
    return None


@functools.cache
def rendered(name: str) -> Manifests:
    """One of RENDERED as it would be applied. Do not change it: take a copy."""
    if renderer() is None:
        return Manifests(recorded()["rendered"][name])
    return render(RENDERED[name])


def render(folder: Path) -> Manifests:
    found = renderer()
    assert found is not None, NO_RENDERER
    done = subprocess.run([*found[0], str(folder)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{folder}: {done.stderr}"
    assert not done.stderr, f"{folder} is rendered with warnings: {done.stderr}"
    return Manifests(list(yaml.safe_load_all(done.stdout)))


@functools.cache
def recorded() -> dict[str, Any]:
    """``kustomize``: the version, ``files``: what was rendered, ``rendered``: objects by name."""
    return dict(json.loads(RECORD.read_text()))


def digest() -> str:
    """Of every file that is rendered."""
    found = hashlib.sha256()
    for folder in (K8S, Path(__file__).parent / "kustomizations"):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            found.update(f"{path.relative_to(ROOT).as_posix()}\0".encode() + path.read_bytes())
    return found.hexdigest()


def record() -> None:
    found = renderer()
    assert found is not None, NO_RENDERER
    parts = []
    for name, folder in RENDERED.items():
        lines = ",\n".join(json.dumps(item, sort_keys=True) for item in render(folder).objects)
        parts.append(f"{json.dumps(name)}: [\n{lines}\n]")
    head = f'"kustomize": "{found[1]}",\n"files": "{digest()}"'
    body = ",\n".join(parts)
    RECORD.write_text(f'{{{head},\n"rendered": {{\n{body}\n}}}}\n')


def schema_faults(item: Object, version: str) -> list[str]:
    """What the API server of this version would not take of an object, by its schema."""
    where = f"{item['kind']} {item['metadata']['name']} on {version}"
    if CUSTOM.get(item["kind"]) == item["apiVersion"]:
        text = (Path(__file__).parent / "schemas" / f"{item['kind'].lower()}.json").read_text()
        validator = jsonschema.Draft202012Validator(json.loads(text))
        found = validator.iter_errors(item)
        faults = [f"{where}: {error.json_path}: {error.message}" for error in found]
        templates = [workload.pod for workload in workloads_of(item)] if not faults else []
        for pod in templates:
            shell = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pods"}}
            faults += schema_faults({**shell, "template": {"spec": pod}}, version)
        return faults
    try:
        kubernetes_validate.validate(item, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{where}: {'.'.join(map(str, error.path))}: {error.message}"]
    except kubernetes_validate.SchemaNotFoundError:
        return [f"{where}: {item['apiVersion']} has no such kind, and it is not among CUSTOM"]
    return []


if __name__ == "__main__":
    record()
