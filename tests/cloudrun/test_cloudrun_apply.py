"""plan, apply, status and destroy, against the emulated control plane."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cloudrun_emulator import CloudRunEmulator
from cloudrun_specs import CPU, L4, changed, cloudrun, write
from foreign_page import foreign_page

NAME = "projects/my-project/locations/us-central1/services/llm-gateway"
MEMBER = CPU["access"]["invokers"][0]


def apply(file: Path) -> dict[str, Any]:
    done = cloudrun("apply", "--yes", "--json", str(file))
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_plan_says_exactly_what_apply_sends(cloud: CloudRunEmulator, tmp_path: Path) -> None:
    file = write(tmp_path, CPU)
    planned = cloudrun("plan", "--json", str(file))
    assert planned.exit_code == 0, planned.stderr
    assert not cloud.changes
    requests = json.loads(planned.stdout)["requests"]
    assert planned.stdout == cloudrun("plan", "--offline", "--json", str(file)).stdout
    apply(file)
    assert [(x["method"], x["path"].partition("?")[0].removeprefix("/v2/")) for x in requests] == (
        cloud.changes
    )


def test_apply_makes_it_and_does_nothing_when_it_is_so(
    cloud: CloudRunEmulator, tmp_path: Path
) -> None:
    file = write(tmp_path, CPU)
    first = apply(file)
    assert len(first["done"]) == 2
    assert first["status"]["ready"]
    assert first["status"]["url"] == "https://llm-gateway-xyz-uc.a.run.app"
    assert first["status"]["invokers"] == [MEMBER]
    assert first["status"]["pending"] == []
    service = cloud.services[NAME]
    assert service["template"]["containers"][0]["image"] == CPU["image"]
    assert max(x.left for x in cloud.operations.values()) < 0

    before = list(cloud.changes)
    assert apply(file)["done"] == []
    assert cloud.changes == before
    assert "nothing to do" in cloudrun("plan", str(file)).stdout


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"image": "us-central1-docker.pkg.dev/my-project/llm-gateway/cpu:0.2.0"}, "image"),
        ({"scaling": {"max": 4}}, "template.scaling.maxInstanceCount"),
        ({"scaling": {"min": 2}}, "scaling.minInstanceCount"),
        ({"environment": {"MAX_NUM_SEQS": None}}, "env"),
        ({"environment": {"LOG_LEVEL": "debug"}}, "env"),
        ({"scaling": {"min": 0}}, "scaling.minInstanceCount"),
        ({"billing": "request"}, "cpuIdle"),
        ({"session_affinity": True}, "template.sessionAffinity"),
        ({"models": {"bucket": "some-models"}}, "template.volumes"),
        ({"access": {"ingress": "internal"}}, "ingress"),
    ],
    ids=str,
)
def test_a_change_is_one_update(
    change: dict[str, Any], differs: str, cloud: CloudRunEmulator, tmp_path: Path
) -> None:
    cloud.polls = 0
    apply(write(tmp_path, CPU))
    cloud.changes.clear()
    file = write(tmp_path, changed(CPU, **change))
    assert differs in cloudrun("plan", str(file)).stdout.splitlines()[1]
    apply(file)
    assert [verb for verb, _ in cloud.changes] == ["PATCH"]
    cloud.changes.clear()
    assert apply(file)["done"] == []
    # And back: what the spec no longer names goes away.
    apply(write(tmp_path, CPU))
    assert [verb for verb, _ in cloud.changes] == ["PATCH"]


def test_what_somebody_else_changed_is_put_right(cloud: CloudRunEmulator, tmp_path: Path) -> None:
    cloud.polls = 0
    file = write(tmp_path, CPU)
    apply(file)
    container = cloud.services[NAME]["template"]["containers"][0]
    container["args"] = ["serve", "--port", "1"]
    container["env"].reverse()  # says the same
    cloud.services[NAME]["invokerIamDisabled"] = True
    others = {"role": "roles/run.viewer", "members": ["user:a@example.org"]}
    everybody = {"role": "roles/run.invoker", "members": ["allUsers"]}
    cloud.policies[NAME] = {"bindings": [others, everybody], "etag": "REVG"}
    planned = cloudrun("plan", str(file)).stdout
    assert planned.splitlines()[1] == "  # invokerIamDisabled, template.containers[0].args"
    apply(file)
    assert "args" not in cloud.services[NAME]["template"]["containers"][0]
    bindings = {x["role"]: x["members"] for x in cloud.policies[NAME]["bindings"]}
    assert bindings == {"roles/run.viewer": others["members"], "roles/run.invoker": [MEMBER]}


def test_the_gpu_variant(cloud: CloudRunEmulator, tmp_path: Path) -> None:
    assert apply(write(tmp_path, L4))["status"]["ready"]
    template = cloud.services[f"{NAME}-l4"]["template"]
    assert template["nodeSelector"] == {"accelerator": "nvidia-l4"}
    assert f"{NAME}-l4" not in cloud.policies  # nobody is let in unless named


def test_apply_goes_on_where_it_was_broken_off(cloud: CloudRunEmulator, tmp_path: Path) -> None:
    file = write(tmp_path, CPU)
    cloud.cut = True
    broken = cloudrun("apply", "--yes", str(file))
    assert broken.exit_code == 1
    assert "give the same command again" in broken.stderr
    assert cloud.services[NAME]["reconciling"]
    cloud.settle()
    again = apply(file)
    assert [title.partition(" ")[0] for title in again["done"]] == ["let"]
    assert [verb for verb, path in cloud.changes if path.endswith("services")] == ["POST"]
    assert again["status"]["ready"]


@pytest.mark.parametrize(
    ("code", "message", "told"),
    [
        (403, "Permission 'run.services.create' denied", "roles/run.admin"),
        (403, "Cloud Run Admin API has not been used", "gcloud services enable"),
        (429, "Quota exceeded", "quota is used up"),
        (400, "Violation in spec.template: image not found", "correct the spec"),
    ],
)
def test_a_refusal_is_one_sentence(
    code: int, message: str, told: str, cloud: CloudRunEmulator, tmp_path: Path
) -> None:
    cloud.refuse.append((code, message))
    done = cloudrun("apply", "--yes", str(write(tmp_path, CPU)))
    assert done.exit_code == 1
    assert told in done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_container_that_does_not_start(cloud: CloudRunEmulator, tmp_path: Path) -> None:
    file = write(tmp_path, CPU)
    told = "The user-provided container failed to start and listen on the port"
    cloud.fail.append(told)
    done = cloudrun("apply", "--yes", str(file))
    assert done.exit_code == 1
    assert told in done.stderr
    shown = cloudrun("status", str(file))
    assert f"not ready: {told}" in shown.stdout
    assert f"apply would: try the service llm-gateway again: {told}" in shown.stdout
    assert apply(file)["status"]["ready"]
    assert apply(file)["done"] == []


def test_status_and_destroy(cloud: CloudRunEmulator, tmp_path: Path) -> None:
    file = write(tmp_path, CPU)
    assert "no such service" in cloudrun("status", str(file)).stdout
    assert cloudrun("destroy", "--yes", str(file)).stdout == "nothing to remove\n"
    done = cloudrun("apply", "--yes", str(file))
    assert done.stdout.startswith("done:\n  create the service llm-gateway\n")
    assert "create the service llm-gateway (0 s)" in done.stderr  # progress
    assert cloudrun("apply", "--yes", str(file)).stdout.startswith("nothing to do\n")
    shown = cloudrun("status", str(file)).stdout
    assert "https://llm-gateway-xyz-uc.a.run.app: ready" in shown
    assert MEMBER in shown
    done = cloudrun("destroy", "--yes", str(file))
    assert done.exit_code == 0, done.stderr
    assert NAME in done.stderr
    assert "secret llm-gateway-api-keys" in done.stderr
    assert not cloud.services


def test_nothing_is_changed_without_being_asked(cloud: CloudRunEmulator, tmp_path: Path) -> None:
    file = write(tmp_path, CPU)
    done = cloudrun("apply", str(file))
    assert done.exit_code == 1
    assert "add --yes" in done.stderr
    assert "USD per month" in done.stderr
    assert not cloud.changes


def test_what_is_not_cloud_run_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = write(tmp_path, CPU)
    with foreign_page() as address:
        monkeypatch.setenv("CLOUDRUN_API_ENDPOINT", address)
        for command in (["plan"], ["status"], ["apply", "--yes"], ["destroy", "--yes"]):
            done = cloudrun(*command, str(file))
            assert done.exit_code == 1
            assert "what answered is not Cloud Run" in done.stderr


@pytest.mark.parametrize("address", ["http://example.org", "http://[", "http://127.0.0.1:x"])
def test_an_override_is_this_machine_or_https(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str
) -> None:
    monkeypatch.setenv("CLOUDRUN_API_ENDPOINT", address)
    done = cloudrun("status", str(write(tmp_path, CPU)))
    assert done.exit_code == 1
    assert "give https://HOST" in done.stderr
