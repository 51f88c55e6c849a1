"""Every overlay and every component is rendered by kubectl, and taken by the schemas of the oldest
and the newest Kubernetes that is supported."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from k8s_manifests import (
    COMPONENTS,
    CUSTOM,
    NEWEST,
    NO_RENDERER,
    OLDEST,
    OVERLAYS,
    RENDERED,
    digest,
    recorded,
    rendered,
    renderer,
    schema_faults,
)


def test_the_record_is_of_these_files() -> None:
    told = "k8s/ was changed: record it with kubectl: python tests/k8s/k8s_manifests.py"
    assert recorded()["files"] == digest(), told


@pytest.mark.skipif(renderer() is None, reason=NO_RENDERER)
@pytest.mark.parametrize("name", RENDERED)
def test_the_record_is_what_is_rendered(name: str) -> None:
    found = renderer()
    assert found is not None
    if found[1] != recorded()["kustomize"]:
        pytest.skip(f"the record is by kustomize {recorded()['kustomize']}, here is {found[1]}")
    assert recorded()["rendered"][name] == rendered(name).objects


@pytest.mark.parametrize("name", RENDERED)
def test_kubernetes_takes_it(name: str) -> None:
    faults = [
        fault
        for item in rendered(name).objects
        for version in (OLDEST, NEWEST)
        for fault in schema_faults(item, version)
    ]
    assert faults == []


def test_every_component_is_rendered() -> None:
    used = set()
    waiting = list(RENDERED.values())
    while waiting:
        folder = waiting.pop().resolve()
        told = yaml.safe_load((folder / "kustomization.yaml").read_text())
        parts = [
            folder / part for part in [*told.get("components", []), *told.get("resources", [])]
        ]
        used.update(part.resolve() for part in parts)
        waiting += [part for part in parts if part.is_dir()]
    assert len(COMPONENTS) > 10
    assert set(COMPONENTS) <= used
    assert {overlay.name for overlay in OVERLAYS} >= {"cpu-onnx", "dev", "gke", "gpu-vllm"}


def test_every_schema_of_others_is_used() -> None:
    kinds = {item["kind"] for name in RENDERED for item in rendered(name).objects}
    assert set(CUSTOM) <= kinds


POD = {"containers": [{"name": "c", "image": "i:1"}]}
FAULTY: list[tuple[str, dict[str, Any], str]] = [
    (
        "an unknown field",
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "x"},
            "automount": True,
        },
        "automount",
    ),
    (
        "an unknown kind",
        {"apiVersion": "example.com/v1", "kind": "Gateway", "metadata": {"name": "x"}},
        "no such kind",
    ),
    (
        "an old version of a kind",
        {
            "apiVersion": "autoscaling/v2beta2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "x"},
            "spec": {},
        },
        "no such kind",
    ),
    (
        "an unknown field of another's kind",
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": {"name": "x"},
            "spec": {
                "scaleTargetRef": {"name": "x"},
                "minReplicas": 0,
                "triggers": [
                    {
                        "type": "prometheus",
                        "metadata": {"serverAddress": "http://p", "query": "q", "threshold": "1"},
                    }
                ],
            },
        },
        "minReplicas",
    ),
    (
        "a number where KEDA wants text",
        {
            "apiVersion": "keda.sh/v1alpha1",
            "kind": "ScaledObject",
            "metadata": {"name": "x"},
            "spec": {
                "scaleTargetRef": {"name": "x"},
                "triggers": [
                    {
                        "type": "prometheus",
                        "metadata": {"serverAddress": "http://p", "query": "q", "threshold": 1},
                    }
                ],
            },
        },
        "threshold",
    ),
    (
        "a fault in the pods of a LeaderWorkerSet",
        {
            "apiVersion": "leaderworkerset.x-k8s.io/v1",
            "kind": "LeaderWorkerSet",
            "metadata": {"name": "x", "namespace": "n"},
            "spec": {
                "leaderWorkerTemplate": {
                    "size": 2,
                    "leaderTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": POD},
                    "workerTemplate": {
                        "metadata": {"labels": {"a": "c"}},
                        "spec": {**POD, "gracePeriod": 5},
                    },
                }
            },
        },
        "gracePeriod",
    ),
]


@pytest.mark.parametrize(
    ("item", "told"), [case[1:] for case in FAULTY], ids=[f[0] for f in FAULTY]
)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_a_fault_is_told(item: dict[str, Any], told: str, version: str) -> None:
    assert any(told in fault for fault in schema_faults(item, version))


def objects_within(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object with fields of its own: not maps of labels, nor pods, which are Kubernetes'."""
    if isinstance(value, dict):
        yield path, value
        for key, inner in value.items():
            if key not in ("matchLabels", "labels", "annotations") and not (
                key == "spec" and path.endswith("Template")
            ):
                yield from objects_within(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from objects_within(inner, f"{path}[{position}]")


@pytest.mark.parametrize("kind", CUSTOM)
def test_schemas_of_others_know_every_field(kind: str) -> None:
    item = next(item for name in RENDERED for item in rendered(name).of(kind))
    places = [path for path, _ in objects_within(item)]
    assert len(places) > 3
    for place in places:
        broken = copy.deepcopy(item)
        dict(objects_within(broken))[place]["surprise"] = "x"
        assert any("surprise" in fault for fault in schema_faults(broken, NEWEST)), place
