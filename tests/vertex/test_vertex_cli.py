"""The commands: what they print, ask and leave alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result
from vertex_specs import SMALLEST, Workbench, changed

from gateway.deploy_cli import deploy_app


def call(bench: Workbench, command: str, *options: str) -> Result:
    return CliRunner().invoke(deploy_app, ["vertex", command, str(bench.file), *options])


def test_plan_prints_every_request_and_the_cost(bench: Workbench) -> None:
    found = call(bench, "plan")
    assert found.exit_code == 0, found.output
    assert "v1 ModelService.upload_model" in found.stdout
    assert '"invokeRoutePrefix": "/*"' in found.stdout
    # 730 hours of g2-standard-12 at 1.0004, for one replica and for four.
    assert "llama: USD 730.29 to 2,921.17 a month" in found.stdout
    assert "as of 2026-09-24" in found.stdout
    assert bench.emulator.changes == []


def test_plan_offline_is_the_plan_where_nothing_exists(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = call(bench, "plan").stdout
    bench.apply()
    asked = len(bench.emulator.seen)
    assert call(bench, "plan", "--offline").stdout == empty
    assert len(bench.emulator.seen) == asked
    monkeypatch.delenv("VERTEX_API_ENDPOINT")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))
    assert call(bench, "plan", "--offline").stdout == empty


def test_plan_as_json(bench: Workbench) -> None:
    found = json.loads(call(bench, "plan", "--json").stdout)
    assert [each["method"] for each in found["requests"]] == [
        "upload_model",
        "create_endpoint",
        "deploy_model",
    ]
    assert found["requests"][2]["request"]["trafficSplit"] == {"0": 100}
    assert found["cost"]["monthly_min"] == 730.29


@pytest.mark.parametrize(
    ("machine", "said", "monthly"),
    [
        (
            {"type": "g2-standard-24", "accelerator": "NVIDIA_L4", "count": 2},
            "2 x g2-standard-12 is shown",
            1460.58,
        ),
        (
            {"type": "a3-highgpu-1g", "accelerator": "NVIDIA_H100_80GB", "count": 1, "spot": True},
            "Spot prices may change daily",
            4796.83,
        ),
        (
            {"type": "g2-standard-4", "accelerator": "NVIDIA_L4", "count": 1, "spot": True},
            "no dated Spot price",
            515.99,
        ),
        ({"type": "n2-standard-8"}, "no dated price of n2-standard-8", None),
    ],
)
def test_costs(bench: Workbench, machine: dict, said: str, monthly: float | None) -> None:
    bench.use(changed(deployments__0__machine=machine))
    found = json.loads(call(bench, "plan", "--json").stdout)["cost"]
    assert found["monthly_min"] == monthly
    assert any(said in note for note in found["deployments"][0]["notes"])


def test_prices_of_ones_own(bench: Workbench, tmp_path: Path) -> None:
    entry = {
        "machine": "g2-standard-12", "gpu": "l4", "gpus": 1, "region": "us-central1",
        "on_demand": 1.0, "spot": None, "as_of": "2026-11-01", "source": "contract",
    }  # fmt: skip
    own = tmp_path / "own.json"
    own.write_text(json.dumps({"entries": [entry]}), encoding="utf-8")
    assert "USD 730.00 to 2,920.00" in call(bench, "plan", "--prices", str(own)).stdout
    broken = call(bench, "plan", "--prices", str(tmp_path / "none.json"))
    assert broken.exit_code == 1
    assert "none.json cannot be read" in broken.stderr


def test_apply_asks_where_nobody_can_answer(bench: Workbench) -> None:
    found = call(bench, "apply")
    assert found.exit_code == 1
    assert "add --yes" in found.stderr
    assert bench.emulator.changes == []


def test_apply_then_status_then_destroy(bench: Workbench) -> None:
    made = call(bench, "apply", "--yes")
    assert made.exit_code == 0, made.output
    assert "3 steps done" in made.stdout
    assert "deploy llama-" in made.stderr
    again = call(bench, "apply")
    assert again.exit_code == 0
    assert again.stdout.startswith("nothing to do")
    endpoint = f"projects/my-project/locations/us-central1/endpoints/{bench.spec.endpoint_id}"
    host = f"https://{bench.spec.endpoint_id}.us-central1-4711.prediction.vertexai.goog"
    status = json.loads(call(bench, "status", "--json").stdout)
    assert status["openai_base_url"] == f"{host}/v1/{endpoint}/invoke/v1"
    (deployed,) = status["deployed"]
    assert (deployed["traffic"], deployed["replicas"], deployed["max_replicas"]) == (100, 1, 4)
    assert deployed["accelerator"] == "NVIDIA_L4"
    assert f"OpenAI base_url  {status['openai_base_url']}" in call(bench, "status").stdout
    refused = call(bench, "destroy")
    assert refused.exit_code == 1
    assert "endpoint chat (projects/" in refused.stderr
    assert bench.endpoint
    gone = call(bench, "destroy", "--yes")
    assert "removed 3 resources" in gone.stdout
    assert bench.emulator.snapshot() == {"models": {}, "endpoints": {}}
    assert "nothing to remove" in call(bench, "destroy").stdout


def test_status_without_an_endpoint(bench: Workbench) -> None:
    found = call(bench, "status")
    assert found.exit_code == 1
    assert "there is no endpoint projects/my-project" in found.stderr


def test_the_sdks_own_classes_see_what_apply_made(bench: Workbench) -> None:
    """``aiplatform.Endpoint`` and ``Model``, as a user of the SDK has them."""
    bench.use(SMALLEST)
    bench.apply()
    sdk = bench.cloud.init_sdk()
    endpoint = sdk.Endpoint(bench.spec.endpoint_name)
    (deployed,) = endpoint.list_models()
    assert endpoint.dedicated_endpoint_dns.endswith("prediction.vertexai.goog")
    assert endpoint.traffic_split == {deployed.id: 100}
    assert sdk.Model(deployed.model).container_spec.invoke_route_prefix == "/*"
    (found,) = sdk.Endpoint.list(filter="labels.deployment=chat")
    assert found.resource_name == endpoint.resource_name
