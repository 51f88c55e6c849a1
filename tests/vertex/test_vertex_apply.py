"""``apply`` and ``plan`` with the unmodified SDK against the strict emulator."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from google.protobuf import json_format
from vertex_specs import IMAGE, SMALLEST, Workbench, changed, two_deployments

from deploy.vertex import VertexError
from deploy.vertex.destroy import destroy, find_doomed
from deploy.vertex.requests import as_json
from deploy.vertex.rollout_split import Phase, Record
from deploy.vertex.spec import load_spec
from deploy.vertex.status import read_status
from deploy.vertex.steps import Step

NEWER = IMAGE.replace("1.0.0", "1.1.0")


def test_apply_makes_model_endpoint_and_deployment(bench: Workbench) -> None:
    bench.apply()
    assert bench.emulator.methods == ["uploadModel", "createEndpoint", "deployModel"]
    (model,) = bench.emulator.snapshot()["models"].values()
    container = model["containerSpec"]
    assert container["invokeRoutePrefix"] == "/*"
    assert "predictRoute" not in container
    assert container["startupProbe"]["httpGet"] == {"path": "/health/startup", "port": 8080}
    assert {"name": "VERTEX_AUTH", "value": "iam"} in container["env"]
    endpoint = bench.endpoint
    assert endpoint["dedicatedEndpointEnabled"]
    assert endpoint["clientConnectionConfig"] == {"inferenceTimeout": "600s"}
    (deployed,) = endpoint["deployedModels"]
    assert deployed["dedicatedResources"]["autoscalingMetricSpecs"] == [
        {
            "metricName": "prometheus.googleapis.com/vertex_vllm_num_requests_waiting",
            "target": 5,
        }
    ]
    assert endpoint["trafficSplit"] == {deployed["displayName"]: 100}


def test_progress_tells_how_far_a_deployment_is(bench: Workbench) -> None:
    bench.apply()
    stages = [line for line in bench.told if line.endswith(", starting model server")]
    assert stages
    assert all(line.startswith("deploy llama-") for line in stages)


def test_a_second_apply_changes_nothing(bench: Workbench) -> None:
    bench.use(two_deployments())
    bench.apply()
    before, sent = bench.emulator.snapshot(), len(bench.emulator.changes)
    assert bench.apply() == []
    assert bench.emulator.snapshot() == before
    assert len(bench.emulator.changes) == sent


@pytest.mark.parametrize("earlier", [None, "same", "other"])
def test_plan_changes_nothing_and_shows_what_apply_sends(
    bench: Workbench, earlier: str | None
) -> None:
    if earlier == "same":
        bench.apply()
    if earlier == "other":
        bench.use(changed(deployments__0__image=NEWER, endpoint={"inference_timeout_s": 60}))
        bench.apply()
    bench.use(two_deployments())
    sent = len(bench.emulator.changes)
    planned = bench.plan()
    assert len(bench.emulator.changes) == sent
    bench.apply()
    assert planned
    ids = {
        f"id-of-{each.display_name}": each.id
        for each in bench.emulator.rules.endpoints[bench.spec.endpoint_name].deployed_models
    }
    shown = [body_of(step) for step in planned]
    received = [
        as_json(parsed(type(body), seen.body))
        for body, seen in zip(shown, bench.emulator.changes[sent:], strict=True)
    ]
    told = json.dumps([as_json(body) for body in shown])
    for imagined, real in ids.items():
        told = told.replace(imagined, real)
    assert json.loads(told) == received


def body_of(step: Step) -> Any:
    """The message that REST has in the body; the rest of a request is in the path and query."""
    request = type(step.request)(step.request)
    if step.method in ("create_endpoint", "update_endpoint"):
        request.endpoint.name = ""
        return request.endpoint
    if step.method == "update_endpoint_long_running":
        request.endpoint.name = ""
        return request
    for name in ("parent", "endpoint"):
        if isinstance(getattr(request, name, None), str):
            setattr(request, name, "")
    return request


def parsed(kind: Any, body: dict[str, Any]) -> Any:
    return kind.wrap(json_format.ParseDict(body, kind.pb(kind())))


def test_several_deployments_share_the_traffic(bench: Workbench) -> None:
    bench.use(two_deployments(70, 30))
    bench.apply()
    shares = {t.rsplit("-", 1)[0]: s for t, s in bench.endpoint["trafficSplit"].items()}
    assert shares == {"llama": 70, "qwen": 30}
    bench.use(two_deployments(0, 100))
    assert bench.emulator.methods[-1] == "updateEndpoint"
    (title,) = bench.apply()
    assert title.startswith("set traffic: llama-")
    assert list(bench.endpoint["trafficSplit"].values()) == [100]
    bench.use(SMALLEST)
    bench.apply()
    assert len(bench.endpoint["deployedModels"]) == 1


def test_scaling_changes_in_place(bench: Workbench) -> None:
    bench.apply()
    targets = {"cpu_utilization": 50, "vllm_kv_usage": 80}
    bench.use(
        changed(
            deployments__0__scaling={"min_replicas": 2, "max_replicas": 9, "targets": targets},
            deployments__0__container_logging=False,
        )
    )
    bench.apply()
    assert bench.emulator.methods[3:] == ["mutateDeployedModel"]
    (deployed,) = bench.endpoint["deployedModels"]
    assert deployed["disableContainerLogging"]
    resources = deployed["dedicatedResources"]
    assert (resources["minReplicaCount"], resources["maxReplicaCount"]) == (2, 9)
    assert len(resources["autoscalingMetricSpecs"]) == 2
    assert resources["machineSpec"]["machineType"] == "g2-standard-12"
    assert bench.apply() == []


def test_a_new_image_takes_over_after_it_runs(bench: Workbench) -> None:
    bench.apply()
    bench.use(changed(deployments__0__image=NEWER))
    bench.apply()
    assert bench.emulator.methods[3:] == [
        "uploadModel",
        "deployModel",
        "updateEndpoint",
        "undeployModel",
    ]
    assert "trafficSplit" not in bench.emulator.changes[4].body
    (deployed,) = bench.endpoint["deployedModels"]
    assert deployed["model"].endswith(deployed["displayName"])
    assert len(bench.emulator.snapshot()["models"]) == 2


def test_a_version_that_is_deployed_twice_is_so_no_longer(bench: Workbench) -> None:
    """As two operators at once make it."""
    bench.apply()
    endpoint = bench.emulator.rules.endpoints[bench.spec.endpoint_name]
    first = endpoint.deployed_models[0].id
    twin = endpoint.deployed_models.add()
    twin.CopyFrom(endpoint.deployed_models[0])
    twin.id = "9999"
    (title,) = bench.apply()
    assert title.endswith("(deployed twice)")
    assert [each.id for each in endpoint.deployed_models] == [first]


def test_the_endpoint_changes_in_place(bench: Workbench) -> None:
    bench.apply()
    logging = {"bigquery": "bq://my-project.logs.requests", "sampling_rate": 0.25}
    endpoint = {"inference_timeout_s": 1200, "request_logging": logging}
    bench.use(changed(labels={"team": "chat"}, endpoint=endpoint))
    bench.emulator.rules.endpoints[bench.spec.endpoint_name].labels["other-tool"] = "1"
    bench.apply()
    assert bench.emulator.methods[3:] == ["updateEndpoint", "updateEndpointLongRunning"]
    found = bench.endpoint
    assert found["clientConnectionConfig"] == {"inferenceTimeout": "1200s"}
    assert found["labels"]["team"] == "chat"
    assert found["labels"]["other-tool"] == "1"
    assert found["predictRequestResponseLoggingConfig"]["samplingRate"] == 0.25
    bench.use(SMALLEST)
    bench.apply()
    assert not bench.endpoint["predictRequestResponseLoggingConfig"].get("enabled", False)
    assert bench.apply() == []


def test_access_cannot_change(bench: Workbench) -> None:
    bench.use(changed(mode="predict"))
    bench.apply()
    bench.use(changed(mode="predict", endpoint={"access": "shared"}))
    with pytest.raises(VertexError, match="is dedicated and cannot become shared: set another"):
        bench.apply()


def test_an_endpoint_of_others_is_left_alone(bench: Workbench) -> None:
    bench.apply()
    bench.emulator.rules.endpoints[bench.spec.endpoint_name].labels["deployment"] = "theirs"
    sent = len(bench.emulator.changes)
    for attempt in (bench.apply, bench.plan, lambda: find_doomed(bench.cloud, bench.spec)):
        with pytest.raises(VertexError, match=r"set endpoint\.id"):
            attempt()
    assert len(bench.emulator.changes) == sent


@pytest.mark.parametrize("phase", ["forward", "back", "done"])
def test_a_rollout_under_way_is_not_overtaken(bench: Workbench, phase: Phase) -> None:
    bench.apply()
    endpoint = bench.emulator.rules.endpoints[bench.spec.endpoint_name]
    new = endpoint.deployed_models[0].id
    endpoint.labels.update(Record(new, {"1": 100}, phase).labels())
    bench.use(changed(deployments__0__scaling__max_replicas=2))
    if phase == "done":
        assert len(bench.apply()) == 1
        return
    for attempt in (bench.plan, bench.apply):
        with pytest.raises(VertexError, match=r"a rollout of llama-.* is under way: end it with"):
            attempt()
    assert len(bench.emulator.changes) == 3


def test_scale_to_zero_goes_through_v1beta1(bench: Workbench) -> None:
    zero = {"idle_s": 1800, "min_scaleup_s": 300}
    scaling = {"min_replicas": 0, "max_replicas": 2, "scale_to_zero": zero}
    bench.use(changed(deployments__0__scaling=scaling, deployments__0__machine__spot=True))
    bench.apply()
    resources = bench.endpoint["deployedModels"][0]["dedicatedResources"]
    assert resources["scaleToZeroSpec"] == {
        "idleScaledownPeriod": "1800s",
        "minScaleupPeriod": "300s",
    }
    assert resources["initialReplicaCount"] == 1
    assert "minReplicaCount" not in resources
    assert bench.apply() == []
    bench.use(
        changed(
            deployments__0__scaling=scaling,
            deployments__0__machine__spot=True,
            deployments__0__image=NEWER,
        )
    )
    assert "requests fail until" in bench.plan()[1].title
    bench.apply()
    assert bench.emulator.methods[3:] == ["uploadModel", "undeployModel", "deployModel"]


def test_predict_private_and_reservations(bench: Workbench) -> None:
    bench.use(
        changed(
            mode="predict",
            endpoint={"access": "private", "private_projects": ["my-consumer"]},
            deployments__0__machine__reservation={"use": "specific", "names": ["l4"]},
            deployments__0__service_account="serving@my-project.iam.gserviceaccount.com",
            deployments__0__artifact="gs://models/llama",
            deployments__0__environment={"SERVED_MODEL_NAME": "llama"},
            deployments__0__shared_memory_mb=1024,
        )
    )
    bench.apply()
    (model,) = bench.emulator.snapshot()["models"].values()
    assert model["artifactUri"] == "gs://models/llama"
    assert model["containerSpec"]["predictRoute"] == "/predict"
    assert model["containerSpec"]["sharedMemorySizeMb"] == "1024"
    connect = bench.endpoint["privateServiceConnectConfig"]
    assert connect == {"enablePrivateServiceConnect": True, "projectAllowlist": ["my-consumer"]}
    machine = bench.endpoint["deployedModels"][0]["dedicatedResources"]["machineSpec"]
    assert machine["reservationAffinity"]["reservationAffinityType"] == "SPECIFIC_RESERVATION"
    assert bench.apply() == []
    assert read_status(bench.cloud, bench.spec)["url"].startswith("https://$PSC_IP/v1/projects/")


@pytest.mark.parametrize("example", ["l4", "h100", "predict"])
def test_shipped_examples_deploy(bench: Workbench, example: str) -> None:
    from pathlib import Path

    import deploy.vertex

    bench.spec = load_spec(Path(deploy.vertex.__file__).parent / f"{example}.yaml")
    bench.apply()
    assert bench.apply() == []
    found = read_status(bench.cloud, bench.spec)
    assert sum(each["traffic"] for each in found["deployed"]) == 100
    assert ("openai_base_url" in found) == (bench.spec.mode == "invoke")


def test_destroy_removes_everything_of_the_spec_alone(bench: Workbench) -> None:
    bench.use(changed(name="other"))
    bench.apply()
    left = copy.deepcopy(bench.emulator.snapshot())
    bench.use(two_deployments())
    bench.apply()
    second = two_deployments()
    second["deployments"][0]["image"] = NEWER
    bench.use(second)
    bench.apply()
    lines = find_doomed(bench.cloud, bench.spec).lines()
    assert [line.split()[0] for line in lines] == ["deployed"] * 2 + ["endpoint"] + ["model"] * 3
    destroy(bench.cloud, bench.spec, bench.told.append)
    assert bench.emulator.snapshot() == left
    assert find_doomed(bench.cloud, bench.spec).lines() == []
