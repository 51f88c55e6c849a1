"""What is shipped for Ray Serve on Kubernetes, as far as it can be checked without a cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import which
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway.settings import Settings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "ray"
HADOLINT = which("hadolint", path=str(Path(sys.executable).parent))


def load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return document


def test_the_manifest_has_the_config_that_is_tested() -> None:
    assert yaml.safe_load(load("rayservice.yaml")["spec"]["serveConfigV2"]) == load("serve.yaml")


def test_the_pods_are_valid_and_have_room_for_a_replica() -> None:
    cluster = load("rayservice.yaml")["spec"]["rayClusterConfig"]
    (worker,) = cluster["workerGroupSpecs"]
    for group in (cluster["headGroupSpec"], worker):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}} | group["template"]
        kubernetes_validate.validate(pod, "1.34", strict=True)
    (gateway,) = load("serve.yaml")["applications"][0]["deployments"]
    (container,) = worker["template"]["spec"]["containers"]
    assert int(container["resources"]["limits"]["cpu"]) >= gateway["ray_actor_options"]["num_cpus"]
    grace_s = worker["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace_s > gateway["graceful_shutdown_timeout_s"]


def test_the_replicas_settings_are_ours() -> None:
    (gateway,) = load("serve.yaml")["applications"][0]["deployments"]
    environment = gateway["ray_actor_options"]["runtime_env"]["env_vars"]
    assert {name.lower() for name in environment} <= set(Settings.model_fields)
    assert not any("KEY" in name for name in environment)  # Ray shows them to everybody
    seats = int(environment["MAX_NUM_SEQS"])
    assert gateway["autoscaling_config"]["target_ongoing_requests"] < seats
    assert seats < gateway["max_ongoing_requests"]


def test_manifest_and_image_have_the_locked_ray() -> None:
    lock = (ROOT / "engine" / "environments" / "ray.txt").read_text()
    version = load("rayservice.yaml")["spec"]["rayClusterConfig"]["rayVersion"]
    assert f"\nray=={version} " in lock
    assert "COPY engine/environments/ray.txt" in (FOLDER / "Dockerfile").read_text()


@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not installed")
def test_the_dockerfile_has_no_fault() -> None:
    done = subprocess.run(
        [str(HADOLINT), FOLDER / "Dockerfile"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
