"""What the cloud refuses reaches people as one sentence with what to do."""

from __future__ import annotations

import re
import sys

import pytest
from foreign_page import foreign_page
from typer.testing import CliRunner
from vertex_specs import Workbench, changed

from deploy.vertex import VertexError
from deploy.vertex.client import open_cloud
from gateway.deploy_cli import deploy_app

REFUSALS = [
    ("deployModel", 429, "Quota exceeded for CustomModelServingL4GPUs", "ask for more at IAM"),
    ("deployModel", 429, "us-central1 does not have enough resources", "or a reservation"),
    ("uploadModel", 403, "Permission 'aiplatform.models.upload' denied", "roles/aiplatform.user"),
    (
        "listOperations",
        403,
        "Vertex AI API has not been used in project 1 before or it is disabled",
        "gcloud services enable aiplatform.googleapis.com",
    ),
    (
        "uploadModel",
        404,
        "Image us-central1-docker.pkg.dev/x not found",
        "project, region and image",
    ),
    ("createEndpoint", 503, "The service is currently unavailable", "give the same command again"),
    ("createEndpoint", 400, "labels are not valid", "correct the spec"),
]


@pytest.mark.parametrize(("method", "code", "told", "advice"), REFUSALS)
def test_a_refusal_says_what_to_do_and_is_no_end(
    bench: Workbench, method: str, code: int, told: str, advice: str
) -> None:
    bench.emulator.refuse[method] = [(code, told)]
    found = CliRunner().invoke(deploy_app, ["vertex", "apply", str(bench.file), "--yes"])
    assert found.exit_code == 1
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("llm-gateway: ")
    assert told in last
    assert advice in last
    assert "Traceback" not in found.output
    bench.apply()
    assert len(bench.endpoint["deployedModels"]) == 1


def test_quota_of_the_emulated_project(bench: Workbench) -> None:
    bench.emulator.quota["NVIDIA_L4"] = 2
    with pytest.raises(VertexError, match=r"deploy llama-.*quota is used up .*L4GPUs"):
        bench.apply()
    bench.use(changed(deployments__0__scaling__max_replicas=2))
    assert len(bench.apply()) == 1


@pytest.mark.parametrize(
    ("code", "message", "advice"),
    [
        (8, "Quota exceeded", "IAM & Admin"),
        (5, "image not found", "image in the spec"),
        (9, "the model is used elsewhere", "not possible as things are"),
        (9, "Model server exited unexpectedly", "read its log in Cloud Logging"),
        (13, "internal error", "again"),
    ],
)
def test_an_operation_that_fails_says_why(
    bench: Workbench, code: int, message: str, advice: str
) -> None:
    bench.emulator.fail["deployModel"] = [(code, message)]
    with pytest.raises(VertexError, match=re.escape(message)) as caught:
        bench.apply()
    assert advice in str(caught.value)


def test_a_field_that_the_version_lacks_is_refused(bench: Workbench) -> None:
    """The emulator's own proof: it is as strict as the messages are."""
    import requests

    body = {"displayName": "x", "scaleToZero": True}
    path = f"{bench.emulator.url}/v1/{bench.spec.parent}/endpoints?endpointId=1"
    answer = requests.post(path, json=body, timeout=10)
    assert answer.status_code == 400
    assert "scaleToZero" in answer.json()["error"]["message"]
    assert bench.emulator.snapshot()["endpoints"] == {}


@pytest.mark.parametrize(
    "address",
    ["http://example.com", "127.0.0.1:80", "ftp://127.0.0.1", "http://[", "http://127.0.0.1:x"],
)
def test_credentials_are_left_out_on_this_machine_alone(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("VERTEX_API_ENDPOINT", address)
    with pytest.raises(VertexError, match="give https://HOST, or http://127"):
        open_cloud(bench.spec)
    monkeypatch.setenv("VERTEX_API_ENDPOINT", "https://us-central1-aiplatform.googleapis.com")
    with open_cloud(bench.spec) as cloud:
        assert cloud.credentials() is None
        assert cloud.transport == "grpc"


def test_without_credentials_it_says_how_to_get_them(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    monkeypatch.delenv("VERTEX_API_ENDPOINT")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    found = CliRunner().invoke(deploy_app, ["vertex", "plan", str(bench.file)])
    assert found.exit_code == 1
    assert "gcloud auth application-default login" in found.stderr


def test_credentials_that_have_ended_say_how_to_renew_them(bench: Workbench) -> None:
    bench.emulator.refuse["getModel"] = [(401, "Request had invalid credentials")]
    with pytest.raises(VertexError, match="gcloud auth application-default login"):
        bench.plan()


def test_what_is_not_vertex_ai_is_named(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    with foreign_page() as address:
        monkeypatch.setenv("VERTEX_API_ENDPOINT", address)
        for command in (["plan"], ["apply", "--yes"], ["destroy", "--yes"]):
            found = CliRunner().invoke(
                deploy_app, ["vertex", command[0], str(bench.file), *command[1:]]
            )
            assert found.exit_code == 1
            assert "what answered is not Vertex AI" in found.stderr


def test_without_the_sdk_it_says_what_to_install(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google.cloud.aiplatform_v1", None)
    found = CliRunner().invoke(deploy_app, ["vertex", "plan", str(bench.file)])
    assert found.exit_code == 1
    assert "pip install 'llm-gateway[vertex]'" in found.stderr
