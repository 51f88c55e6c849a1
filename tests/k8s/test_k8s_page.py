"""docs/deploy/kubernetes.md says what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from k8s_manifests import (
    COMPONENTS,
    K8S,
    NO_RENDERER,
    OVERLAYS,
    ROOT,
    render,
    rendered,
    renderer,
)
from k8s_pods import pre_stop_s
from k8s_settings import SECRETS, values_of

from gateway import __version__

PAGE = (ROOT / "docs/deploy/kubernetes.md").read_text()
MONTH_H = 730
needs_kubectl = pytest.mark.skipif(renderer() is None, reason=NO_RENDERER)


def rows(heading: str) -> list[list[str]]:
    """Cells of the table whose first heading this is."""
    start = re.escape(f"| {heading} |".replace("|  |", "| |"))
    (table,) = re.findall(rf"^{start}.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]


def test_every_overlay_and_component_is_listed() -> None:
    assert {row[0].strip("`") for row in rows("Overlay")} == {path.name for path in OVERLAYS}
    listed = {
        name for row in rows("Component | Adds") for name in re.findall(r"`([a-z0-9-]+)`", row[0])
    }
    # The part that the three kinds of GPU share is named beside them.
    assert listed | {"gpu"} == {path.name for path in COMPONENTS}


def test_secrets_are_those_that_the_pods_read() -> None:
    made: dict[str, set[str]] = {name: set() for name in SECRETS}
    for name, text in re.findall(
        r"create secret generic (\S+) (.*?)(?=\nkubectl|\n```)", PAGE, re.S
    ):
        made[name] |= set(re.findall(r"--from-literal=([a-z-]+)=", text))
    assert made == {name: set(keys) for name, keys in SECRETS.items()}


def test_prices_are_those_of_the_file() -> None:
    file = json.loads((ROOT / "engine/capacity/prices.json").read_text())
    entries = {
        (entry["machine"], entry["as_of"]): entry
        for entry in file["entries"]
        if entry["region"] == "us-central1"
    }
    shown = rows("Component | Machine")
    for component, machine, hour, month, spot, as_of in shown:
        entry = entries[machine, as_of]
        assert component.strip("`") == f"gpu-{entry['gpu'].split('-')[0]}"
        assert entry["gpus"] == 1
        assert (hour, month) == (
            f"{entry['on_demand']:.2f}",
            f"{entry['on_demand'] * MONTH_H:.2f}",
        )
        assert spot == ("" if entry["spot"] is None else f"{entry['spot']:.2f}")
    assert {row[0].strip("`") for row in shown} == {"gpu-l4", "gpu-a100", "gpu-h100"}


def test_tests_that_it_names_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) >= 10
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), (file, name)


def test_the_version_is_the_projects() -> None:
    assert re.findall(r"VERSION=(\S+)", PAGE) == [__version__]


@needs_kubectl
def test_the_overlay_of_ones_own(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(apiVersion: kustomize.*?)```", PAGE, re.S)
    # kustomize takes relative paths only, as the page has them.
    (tmp_path / "k8s").symlink_to(K8S)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/kustomization.yaml").write_text(text)
    (workload,) = render(tmp_path / "mine").workloads()
    image = f"registry.example.com/team/llm-gateway-cpu:{__version__}"
    assert workload.container["image"] == image
    assert workload.namespace == "llm-gateway-dev"


def test_the_times_of_ends() -> None:
    shown = {row[0].strip("`"): row[1:] for row in rows("| preStop")}
    for name, overlay in (("base", "cpu-onnx"), ("dev", "dev"), ("spot", "gpu-h100")):
        manifests = rendered(overlay)
        (workload,) = manifests.workloads()
        drain = values_of(manifests, workload)["DRAIN_TIMEOUT_S"]
        grace = workload.pod["terminationGracePeriodSeconds"]
        assert shown[name] == [f"{pre_stop_s(workload):g} s", f"{drain} s", f"{grace} s"]
