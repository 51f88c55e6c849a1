"""The spec: every fault is told with its place and its fix, before anything is sent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from vertex_specs import IMAGE, SMALLEST, changed, two_deployments

from deploy.vertex import VertexError
from deploy.vertex.machines import CARRIERS
from deploy.vertex.requests import model_id, version_of
from deploy.vertex.spec import Spec, load_spec

H100 = {"accelerator": "NVIDIA_H100_80GB"}
FAULTS: list[tuple[dict[str, Any], str]] = [
    (changed(projekt="x"), "projekt: there is no projekt here: correct the name or remove it"),
    (changed(project=None), "project: is missing: add it"),
    (changed(deployments__0__image=None), "deployments.0.image: is missing"),
    (changed(deployments__0__gpu=1), "deployments.0.gpu: there is no gpu here"),
    (changed(deployments__0__traffic=50), "traffic of all deployments sums to 50: make it 100"),
    (changed(deployments__1=SMALLEST["deployments"][0]), "two deployments are called llama"),
    (
        changed(deployments__0__image="us-docker.pkg.dev/p/r/gateway:1"),
        "push it to us-central1-docker.pkg.dev/PROJECT/REPOSITORY/NAME:TAG",
    ),
    (changed(deployments__0__image="gcr.io/p/gateway:1"), "is not in Artifact Registry of us-cent"),
    (changed(deployments__0__image=IMAGE.replace("1.0.0", "latest")), "another image tomorrow"),
    (changed(deployments__0__image=IMAGE.partition(":")[0]), "another image tomorrow"),
    (
        changed(deployments__0__environment={"AIP_HTTP_PORT": 1}),
        "AIP_HTTP_PORT: Vertex AI sets AIP_* itself: remove it",
    ),
    (changed(deployments__0__environment={"PORT": 80}), "set the deployment's port instead"),
    (changed(deployments__0__environment={"HOST": "127.0.0.1"}), "HOST: Vertex AI reaches"),
    (
        changed(deployments__0__environment={"MAX_MODEL_LENGTH": 4096}),
        "MAX_MODEL_LENGTH: no setting of the gateway",
    ),
    (changed(deployments__0__environment={"MAX_MODEL_LEN": 3}), "MAX_MODEL_LEN: Input should be"),
    (changed(deployments__0__environment={"API_KEYS": "short"}), "API_KEYS: each key needs at"),
    (changed(deployments__0__environment={"ADMIN_PORT": 9000}), "takes /metrics off the port"),
    (
        changed(deployments__0__environment={"TENSOR_PARALLEL_SIZE": 2}),
        "need 2 GPUs and the machine has 1",
    ),
    (
        changed(deployments__0__machine={"type": "n1-standard-8", **H100, "count": 1}),
        "n1-standard-8 does not carry NVIDIA_H100_80GB: take one of a3-highgpu-1g, a3-highgpu-2g",
    ),
    (
        changed(deployments__0__machine__accelerator="NVIDIA_TESLA_L4"),
        "NVIDIA_TESLA_L4 is not known here: take one of NVIDIA_A100_80GB",
    ),
    (changed(deployments__0__machine__count=2), "g2-standard-12 carries 1 x NVIDIA_L4: set count"),
    (changed(deployments__0__machine__count=None), "accelerator and count come together"),
    (changed(deployments__0__machine={"type": "a3-highgpu-8g"}), "set accelerator: NVIDIA_H100"),
    (changed(deployments__0__machine={"type": "m5-large"}), "m5-large is no machine type known"),
    (
        changed(deployments__0__machine={"type": "a3-highgpu-1g", **H100, "count": 1}),
        "a3-highgpu-1g is sold as Spot or Flex-start only: set spot: true",
    ),
    (
        changed(deployments__0__machine__spot=True, deployments__0__machine__reservation={}),
        "Spot machines do not come from reservations",
    ),
    (
        changed(deployments__0__machine__reservation={"use": "specific"}),
        "use: specific needs names",
    ),
    (changed(deployments__0__scaling__min_replicas=5), "max_replicas is below min_replicas (5)"),
    (changed(deployments__0__scaling__min_replicas=0), "scale_to_zero come together"),
    (
        changed(
            deployments__0__scaling={"min_replicas": 0, "scale_to_zero": {"idle_s": 60}},
        ),
        "deployments.0.scaling.scale_to_zero.idle_s: Input should be greater than or equal to 300",
    ),
    (
        changed(
            deployments__0__machine={"type": "n2-standard-8"},
            deployments__0__scaling__targets={"gpu_duty_cycle": 60},
        ),
        "the gpu_* targets need a machine with an accelerator",
    ),
    (changed(deployments__0__artifact="gs://models/llama"), "remove MODEL_NAME from environment"),
    (
        changed(deployments__0__artifact="gs://models/llama", deployments__0__environment={}),
        "set SERVED_MODEL_NAME in environment",
    ),
    (changed(endpoint={"access": "shared"}), "mode: invoke needs access: dedicated, not shared"),
    (
        changed(mode="predict", endpoint={"access": "shared", "inference_timeout_s": 90}),
        "a shared endpoint ends every request after 60 s",
    ),
    (changed(mode="predict", endpoint={"access": "private"}), "needs private_projects"),
    (changed(labels={"managed-by": "me"}), "managed-by is set by this tool: remove it"),
    (changed(labels={"Team": "X y"}), "Team: X y is no label"),
    (changed(deployments=[]), "deployments is empty: add one"),
    (changed(rollout={"steps": []}), "steps rise and end with 100"),
    (changed(rollout={"steps": [50, 10]}), "steps rise and end with 100, such as [10, 50, 100]"),
    (changed(deployments__0__startup_probe={"path": "/h", "timeout_s": 20}), "above period_s (10)"),
    (changed(region="europe"), "region: String should match pattern"),
]


def write(tmp_path: Path, content: Any) -> Path:
    file = tmp_path / "spec.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return file


@pytest.mark.parametrize(("content", "told"), FAULTS, ids=[told[:40] for _, told in FAULTS])
def test_a_fault_names_its_place_and_its_fix(
    tmp_path: Path, content: dict[str, Any], told: str
) -> None:
    with pytest.raises(VertexError) as caught:
        load_spec(write(tmp_path, content))
    message = str(caught.value)
    assert told in message
    assert all(line.startswith(f"{tmp_path}/spec.yaml:") for line in message.splitlines())


def test_the_line_is_the_faults_own(tmp_path: Path) -> None:
    file = write(tmp_path, changed(deployments__0__machine__count=2, rollout={"watch_s": -1}))
    text = file.read_text(encoding="utf-8").splitlines()
    with pytest.raises(VertexError) as caught:
        load_spec(file)
    lines = [int(line.split(":")[1]) for line in str(caught.value).splitlines()]
    assert [text[number - 1].strip() for number in lines] == ["machine:", "watch_s: -1"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("project: a\nproject: b\n", ":2: project is given twice"),
        ("project: [a\n", "not YAML"),
        ("- a\n", "holds no mapping"),
        ("", "holds no mapping"),
        ("1: a\n", ":1: 1 is no name"),
        ("a: &a [*a]\n", "holds itself"),
        ("a: !!python/object:os.system x\n", "not YAML"),
    ],
)
def test_what_is_no_spec_at_all(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(VertexError, match=r"spec\.yaml") as caught:
        load_spec(file)
    assert told in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VertexError, match="cannot be read: No such file"):
        load_spec(tmp_path / "none.yaml")


def test_scale_to_zero_holds_one_deployment(tmp_path: Path) -> None:
    content = two_deployments()
    zero = {"min_replicas": 0, "scale_to_zero": {}}
    content["deployments"][0]["scaling"] = zero
    with pytest.raises(VertexError, match="holds one deployment: keep one"):
        load_spec(write(tmp_path, content))


def test_keys_of_this_machine_say_nothing_of_the_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODEL_NAME", "x" * 10)
    monkeypatch.setenv("MAX_MODEL_LEN", "not a number")
    monkeypatch.setenv("HOST", "127.0.0.1")
    assert load_spec(write(tmp_path, SMALLEST)).name == "chat"


def test_values_of_the_environment_become_text(tmp_path: Path) -> None:
    own = {
        "MODEL_NAME": "bundled",
        "ENABLE_PREFIX_CACHING": False,
        "MAX_MODEL_LEN": 4096,
        "ENGINE_ARGS": {"swap": 1},
        "HF_TOKEN": "secret-of-the-hub",
    }
    spec = load_spec(write(tmp_path, changed(deployments__0__environment=own)))
    found = spec.deployments[0].environment
    assert found["ENABLE_PREFIX_CACHING"] == "false"
    assert found["MAX_MODEL_LEN"] == "4096"
    assert json.loads(found["ENGINE_ARGS"]) == {"swap": 1}


@pytest.mark.parametrize("machine", sorted(CARRIERS))
def test_every_pair_is_accepted_by_the_library(tmp_path: Path, machine: str) -> None:
    from google.cloud.aiplatform_v1 import AcceleratorType

    carrier = CARRIERS[machine]
    assert carrier.accelerator in AcceleratorType.__members__
    content = changed(
        deployments__0__machine={
            "type": machine,
            "accelerator": carrier.accelerator,
            "count": carrier.count,
            "spot": not carrier.on_demand,
        }
    )
    assert load_spec(write(tmp_path, content)).deployments[0].machine.count == carrier.count


@pytest.mark.parametrize(
    "change",
    [
        {"deployments__0__image": IMAGE.replace("1.0.0", "1.0.1")},
        {"deployments__0__environment__MAX_NUM_SEQS": 4},
        {"deployments__0__machine__spot": True},
        {"deployments__0__port": 9000},
        {"deployments__0__health_probe": {"path": "/health"}},
        {"deployments__0__service_account": "a@b.iam.gserviceaccount.com"},
        {"mode": "predict"},
    ],
)
def test_what_cannot_change_in_place_makes_a_version(change: dict[str, Any]) -> None:
    assert versions(changed(**change)) != versions(SMALLEST)


@pytest.mark.parametrize(
    "change",
    [
        {"deployments__0__scaling__max_replicas": 9},
        {"deployments__0__container_logging": False},
        {"labels": {"team": "chat"}},
        {"endpoint": {"inference_timeout_s": 10}},
        {"rollout": {"steps": [100]}},
    ],
)
def test_what_can_change_in_place_makes_none(change: dict[str, Any]) -> None:
    assert versions(changed(**change)) == versions(SMALLEST)


def versions(content: dict[str, Any]) -> list[str]:
    spec = Spec.model_validate(content)
    assert all(len(model_id(spec, each)) <= 63 for each in spec.deployments)
    return [version_of(spec, each) for each in spec.deployments]


def test_reading_a_spec_loads_no_google_package() -> None:
    names = ("google.api", "google.auth", "google.cloud.", "google.protobuf")
    code = (
        "import sys, gateway.cli, deploy.vertex.spec\n"
        f"print([m for m in sys.modules if m.startswith({names})])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
