"""What the manifests mean: every rule holds for every overlay, and each is broken once to see that
it would tell. The rules are in k8s_pods, k8s_settings, k8s_wiring, k8s_scaling and k8s_network."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import k8s_mutations_between  # noqa: F401  (adds to MUTATIONS)
import k8s_network
import k8s_pods
import k8s_scaling
import k8s_settings
import k8s_wiring
import pytest
from k8s_manifests import RENDERED, Manifests, rendered
from k8s_mutations import MUTATIONS, Mutation

RULES: tuple[Callable[[Manifests], Iterable[str]], ...] = (
    k8s_pods.pod_security,
    k8s_pods.images,
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
BY_NAME = {rule.__name__: rule for rule in RULES}


@pytest.mark.parametrize("name", RENDERED)
def test_every_rule_holds(name: str) -> None:
    manifests = rendered(name)
    assert [f"{rule.__name__}: {fault}" for rule in RULES for fault in rule(manifests)] == []


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.break_it.__name__)
def test_a_broken_manifest_is_told(mutation: Mutation) -> None:
    broken = rendered(mutation.overlay).copy()
    mutation.break_it(broken)
    faults = list(BY_NAME[mutation.rule](broken))
    assert any(mutation.told in fault for fault in faults), faults


def test_every_rule_is_seen_to_tell() -> None:
    assert {mutation.rule for mutation in MUTATIONS} == set(BY_NAME)
