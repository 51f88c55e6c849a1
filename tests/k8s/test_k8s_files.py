"""The files of k8s/ by themselves, where nothing can be rendered too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import k8s_network
import k8s_pods
import k8s_scaling
import k8s_settings
import k8s_wiring
import yaml
from k8s_manifests import K8S, NEWEST, OLDEST, RENDERED, Manifests, schema_faults

from gateway import __version__

KUSTOMIZATIONS = [
    *K8S.rglob("kustomization.yaml"),
    *(f / "kustomization.yaml" for f in RENDERED.values()),
]
# Fields of a kustomization that name files or folders.
LISTS = ("resources", "components", "configurations")


def named(path: Path) -> Iterator[Path]:
    """What a kustomization.yaml refers to."""
    told = yaml.safe_load(path.read_text())
    for field in LISTS:
        yield from (path.parent / entry for entry in told.get(field, []))
    for patch in told.get("patches", []):
        if "path" in patch:
            yield path.parent / patch["path"]
    for generator in told.get("configMapGenerator", []):
        for entry in [*generator.get("envs", []), *generator.get("files", [])]:
            yield path.parent / entry


def test_every_file_is_used_and_every_name_is_a_file() -> None:
    used = {target.resolve() for path in KUSTOMIZATIONS for target in named(path)}
    assert [str(target) for target in used if not target.exists()] == []
    files = {path for path in K8S.rglob("*") if path.is_file()}
    assert [str(path) for path in files - used if path.name != "kustomization.yaml"] == []


def test_images_are_of_this_version() -> None:
    tags = {
        image["newTag"]
        for path in KUSTOMIZATIONS
        for image in yaml.safe_load(path.read_text()).get("images", [])
    }
    assert tags == {__version__}


def whole_objects() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Objects that stand in a file as they are applied, and no patches."""
    for path in KUSTOMIZATIONS:
        for resource in yaml.safe_load(path.read_text()).get("resources", []):
            file = path.parent / resource
            if file.is_file():
                yield from ((file, item) for item in yaml.safe_load_all(file.read_text()))


def test_kubernetes_takes_every_object() -> None:
    objects = list(whole_objects())
    assert len(objects) > 15
    faults = [
        f"{path}: {fault}"
        for path, item in objects
        for version in (OLDEST, NEWEST)
        for fault in schema_faults(item, version)
    ]
    assert faults == []


def base() -> Manifests:
    """The base with what kustomize would add: the settings' ConfigMap and the image."""
    config = dict(line.split("=", 1) for line in (K8S / "base/config.env").read_text().splitlines())
    objects = [item for path, item in whole_objects() if path.parent == K8S / "base"]
    meta = {"name": "llm-gateway-config", "namespace": "llm-gateway"}
    objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": config})
    manifests = Manifests(objects)
    deployment = manifests.get("Deployment", "llm-gateway")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container["image"] = f"llm-gateway-cpu:{__version__}"
    return manifests


def test_the_base_is_sound() -> None:
    manifests = base()
    rules = (
        k8s_pods.pod_security,
        k8s_pods.resources,
        k8s_pods.gpus,
        k8s_pods.ends,
        k8s_pods.probes,
        k8s_pods.writes,
        k8s_settings.environment,
        k8s_wiring.selectors,
        k8s_wiring.ports,
        k8s_wiring.references,
        k8s_wiring.disruptions,
        k8s_scaling.targets,
        k8s_scaling.thresholds,
        k8s_scaling.speed,
        k8s_scaling.zero,
        k8s_network.reachability,
    )
    assert [fault for rule in rules for fault in rule(manifests)] == []
