"""Specs: what is refused and how it is told, and what a spec becomes in both languages."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloudrun_rules import check_service, parse
from cloudrun_specs import CPU, L4, SHIPPED, changed, cloudrun, loaded, write
from google.protobuf.json_format import ParseError

from deploy.cloudrun import CloudRunError
from deploy.cloudrun.changes import message
from deploy.cloudrun.costs import SHIPPED as PRICES
from deploy.cloudrun.costs import costs
from deploy.cloudrun.service import as_yaml, v1_service, v2_service
from engine.capacity.prices import HOURS_PER_MONTH, read_prices
from gateway.start_stop import FLUSH_S

FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"cpu": 3}, "is none of 1, 2, 4, 6, 8"),
    ({"cpu": 4, "memory": "32Gi"}, "takes 2Gi to 16Gi"),
    ({"cpu": 1, "memory": "8Gi"}, "takes 1Gi to 4Gi"),
    ({"gpu": "nvidia-l4"}, "memory: 16Gi at least"),
    ({"gpu": "nvidia-h100"}, "nvidia-l4"),
    ({"image": "llm-gateway:cpu"}, "not in Artifact Registry"),
    ({"image": "us-docker.pkg.dev/p/r/x:latest"}, "another image tomorrow"),
    ({"image": "us-docker.pkg.dev/p/r/x"}, "another image tomorrow"),
    ({"secrets": None}, "no API_KEYS"),
    ({"environment": {"API_KEYS": "0123456789abcdef"}}, "keep one of them"),
    ({"environment": {"ADMIN_KEYS": "0123456789abcdef"}}, "Secret Manager"),
    ({"environment": {"REDIS_URL": "redis://me:pass@h/0"}}, "Secret Manager"),
    ({"environment": {"MODEL_NAM": "x"}}, "MODEL_NAM: no setting"),
    ({"environment": {"MAX_NUM_SEQS": "many"}}, "MAX_NUM_SEQS"),
    ({"environment": {"PORT": 80}}, "sets it itself"),
    ({"environment": {"K_SERVICE": "x"}}, "sets it itself"),
    ({"environment": {"VERTEX_AUTH": "iam"}}, "for Vertex AI"),
    ({"environment": {"DRAIN_TIMEOUT_S": 30}}, "set 5 or less"),
    ({"environment": {"ENGINE": "vllm"}}, "needs a GPU"),
    ({"environment": {"ADMIN_PORT": 9000}}, "a single port"),
    ({"environment": {"HOST": "127.0.0.1"}}, "at 0.0.0.0"),
    ({"scaling": {"min": 11}}, "more than max"),
    ({"access": {"invokers": ["allUsers"]}}, "public: true"),
    ({"access": {"invokers": ["me"]}}, "no IAM member"),
    ({"timeout_s": 3601}, "3600"),
    ({"startup_s": 241}, "240"),
    ({"colour": "red"}, "colour: no such field"),
    ({"project": None}, "project: is missing"),
]


@pytest.mark.parametrize(("change", "told"), FAULTS, ids=[str(x) for x, _ in FAULTS])
def test_a_fault_is_told_with_its_place(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(CloudRunError) as caught:
        loaded(tmp_path, changed(CPU, **change))
    assert told in str(caught.value)
    assert f"{tmp_path / 'spec.yaml'}:" in str(caught.value)


def test_a_file_that_is_no_spec(tmp_path: Path) -> None:
    for content in ("[1, 2]", "a: b: c", "name: x\nname: y\n"):
        (tmp_path / "x.yaml").write_text(content)
        done = cloudrun("plan", "--offline", str(tmp_path / "x.yaml"))
        assert done.exit_code == 1
        assert done.stderr.startswith("llm-gateway: ")
    done = cloudrun("yaml", str(tmp_path / "missing.yaml"))
    assert done.exit_code == 1
    assert "cannot be read" in done.stderr


@pytest.mark.parametrize("base", [CPU, L4], ids=["cpu", "l4"])
def test_the_shipped_specs_are_what_the_cloud_takes(base: dict[str, Any], tmp_path: Path) -> None:
    spec = loaded(tmp_path, base)
    check_service(parse(v2_service(spec)))


def _probes(service: dict[str, Any]) -> dict[str, Any]:
    container = service["template"]["containers"][0]
    return {name: value for name, value in container.items() if name.endswith("Probe")}


def test_a_field_that_the_api_does_not_have_is_found(tmp_path: Path) -> None:
    body = v2_service(loaded(tmp_path, CPU))
    body["template"]["containers"][0]["bogusField"] = 1
    with pytest.raises(ParseError, match="bogusField"):
        message(body)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, 16),
        ({"environment": {"MAX_NUM_SEQS": None}}, 16),
        ({"environment": {"MAX_NUM_SEQS": 5}}, 5),
        ({"environment": {"MAX_NUM_SEQS": 5, "REPLICAS": 2}}, 10),
        ({"environment": {"MODELS": '[{"model_name":"/models/b","max_num_seqs":3}]'}}, 19),
        ({"concurrency": 40}, 40),
        ({"environment": {"MAX_NUM_SEQS": 4096}}, 1000),
    ],
    ids=str,
)
def test_concurrency_is_the_engines_slots(
    change: dict[str, Any], expected: int, tmp_path: Path
) -> None:
    spec = loaded(tmp_path, changed(CPU, **change))
    assert v2_service(spec)["template"]["maxInstanceRequestConcurrency"] == expected
    assert v1_service(spec)["spec"]["template"]["spec"]["containerConcurrency"] == expected


def test_concurrency_on_a_gpu_is_that_of_vllm(tmp_path: Path) -> None:
    assert loaded(tmp_path, L4).requests_per_instance() == 64
    spec = loaded(tmp_path, changed(L4, environment={"MAX_NUM_SEQS": None}))
    assert spec.requests_per_instance() == 256


def test_both_languages_say_the_same(tmp_path: Path) -> None:
    """Field by field, as the reference of the two has them side by side."""
    spec = loaded(tmp_path, changed(L4, models={"bucket": "b-1", "path": "/m"}))
    new, old = v2_service(spec), v1_service(spec)
    template, inner = new["template"], old["spec"]["template"]["spec"]
    notes = {**old["metadata"]["annotations"], **old["spec"]["template"]["metadata"]["annotations"]}
    (one,), (other,) = template["containers"], inner["containers"]
    for name in ("image", "ports", *_probes(new)):
        assert one[name] == other[name]
    assert one["resources"]["limits"] == other["resources"]["limits"]
    assert template["timeout"] == f"{inner['timeoutSeconds']}s"
    assert template["serviceAccount"] == inner["serviceAccountName"]
    assert template["nodeSelector"]["accelerator"] == "nvidia-l4"
    assert inner["nodeSelector"] == {"run.googleapis.com/accelerator": "nvidia-l4"}
    assert notes["run.googleapis.com/minScale"] == str(new["scaling"]["minInstanceCount"])
    assert notes["autoscaling.knative.dev/maxScale"] == str(template["scaling"]["maxInstanceCount"])
    assert notes["run.googleapis.com/cpu-throttling"] == "false"
    assert one["resources"]["cpuIdle"] is False
    assert notes["run.googleapis.com/startup-cpu-boost"] == "true"
    assert one["resources"]["startupCpuBoost"] is True
    assert notes["run.googleapis.com/gpu-zonal-redundancy-disabled"] == "true"
    assert inner["volumes"][0]["csi"]["volumeAttributes"]["bucketName"] == "b-1"
    assert template["volumes"][0]["gcs"] == {"bucket": "b-1", "readOnly": True}
    assert one["volumeMounts"] == other["volumeMounts"]
    flat = {x["name"]: x.get("value", x.get("valueSource")) for x in one["env"]}
    flat_old = {x["name"]: x.get("value", x.get("valueFrom")) for x in other["env"]}
    assert flat["API_KEYS"]["secretKeyRef"] == {"secret": "llm-gateway-api-keys", "version": "1"}
    assert flat_old["API_KEYS"]["secretKeyRef"] == {"name": "llm-gateway-api-keys", "key": "1"}
    assert {k: v for k, v in flat.items() if k != "API_KEYS"} == {
        k: v for k, v in flat_old.items() if k != "API_KEYS"
    }


def test_it_is_private_unless_said_otherwise(tmp_path: Path) -> None:
    spec = loaded(tmp_path, changed(CPU, access=None))
    assert v2_service(spec)["ingress"] == "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
    assert v2_service(spec)["invokerIamDisabled"] is False
    assert "allUsers" not in cloudrun("plan", "--offline", str(write(tmp_path, CPU))).stdout
    public = changed(CPU, access={"public": True, "invokers": None})
    assert "allUsers" in cloudrun("plan", "--offline", str(write(tmp_path, public))).stdout


def test_the_drain_ends_within_what_cloud_run_grants(tmp_path: Path) -> None:
    """After SIGTERM: the drain, then what ended streams still send, then their connections."""
    assert loaded(tmp_path, CPU).settings().drain_timeout_s + 2 * FLUSH_S < 10
    # vLLM's processes have to stop as well.
    assert loaded(tmp_path, L4).settings().drain_timeout_s + 2 * FLUSH_S + 2 < 10
    with pytest.raises(CloudRunError, match="set 3 or less"):
        loaded(tmp_path, changed(L4, environment={"DRAIN_TIMEOUT_S": 5}))


def test_costs_are_the_sum_of_their_parts(tmp_path: Path) -> None:
    prices = read_prices(PRICES)
    found = costs(loaded(tmp_path, CPU), prices, date(2025, 9, 2))
    hourly = 4 * 0.0648 + 8 * 0.0072
    assert found.hourly == pytest.approx(hourly)
    assert found.least == pytest.approx(hourly * HOURS_PER_MONTH)
    assert found.most == pytest.approx(10 * hourly * HOURS_PER_MONTH)
    assert not found.notes
    old = costs(loaded(tmp_path, changed(CPU, region="europe-west4")), prices, date(2027, 1, 1))
    assert any("days old" in note for note in old.notes)
    assert any("that of us-central1" in note for note in old.notes)
    with_gpu = costs(loaded(tmp_path, L4), prices, date(2025, 9, 2))
    assert with_gpu.hourly == pytest.approx(8 * 0.0648 + 32 * 0.0072 + 0.672)
    assert with_gpu.least == 0
    own = tmp_path / "prices.yaml"
    own.write_text("entries: []\n")
    none = cloudrun("plan", "--offline", "--prices", str(own), str(write(tmp_path, CPU)))
    assert "no price of cloudrun-vcpu" in none.stdout


def test_the_yaml_is_what_the_command_prints(tmp_path: Path) -> None:
    spec = loaded(tmp_path, CPU)
    printed = cloudrun("yaml", str(write(tmp_path, CPU)))
    assert printed.exit_code == 0
    assert printed.stdout == as_yaml(spec)
    assert yaml.safe_load(printed.stdout) == json.loads(json.dumps(v1_service(spec)))


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_gcloud_takes_the_yaml(tmp_path: Path) -> None:
    """It parses strictly, and asks the cloud only then."""
    file = tmp_path / "service.yaml"
    file.write_text(cloudrun("yaml", str(SHIPPED / "l4.yaml")).stdout)
    assert gcloud(tmp_path, file) == "it connects"
    file.write_text(file.read_text().replace("containerPort:", "containerPorts:"))
    assert "containerPorts" in gcloud(tmp_path, file)


def gcloud(folder: Path, file: Path) -> str:
    """What ``gcloud run services replace`` says, or that it has begun to connect."""
    proxy = socket.create_server(("127.0.0.1", 0))
    proxy.settimeout(0.05)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "CLOUDSDK_CONFIG": str(folder / "gcloud"),
        "CLOUDSDK_AUTH_ACCESS_TOKEN": "none",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
        "HTTPS_PROXY": f"http://127.0.0.1:{proxy.getsockname()[1]}",
    }
    command = "gcloud run services replace --region us-central1 --dry-run --quiet --project p-1234"
    with (
        proxy,
        (folder / "told.txt").open("wb") as told,
        subprocess.Popen(
            [*command.split(), str(file)],
            stdout=told,
            stderr=told,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        until = time.monotonic() + 120
        try:
            while process.poll() is None:
                assert time.monotonic() < until
                with contextlib.suppress(TimeoutError):
                    proxy.accept()[0].close()
                    return "it connects"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return (folder / "told.txt").read_text()
