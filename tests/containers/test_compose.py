"""The compose files: by the specification, and with each other and what they mount."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from dockerfile_steps import pairs, read_dockerfile
from dry_build import DOCKER

from gateway.settings import Settings
from gateway.start_stop import FLUSH_S

SCHEMA = yaml.safe_load(Path(__file__).with_name("compose_schema.yaml").read_text())
FILES = sorted(DOCKER.glob("compose*.yaml"))
MONITORING = DOCKER.parent / "monitoring"


def load(name: str) -> Any:
    return yaml.safe_load((DOCKER / name).read_text())


@pytest.fixture(scope="module")
def services() -> Any:
    return load("compose.yaml")["services"]


def mounts(service: Any) -> dict[str, str]:
    """What is mounted, by where."""
    return {place: what for what, place, *_ in (x.split(":") for x in service["volumes"])}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_by_the_specification(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(load(path.name), SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"imagee": "x:1"},
        {"image": "prom/prometheus"},
        {"ports": ["9090:9090"]},
        {"environment": {"DRAIN_TIMEOUT_S": 30}},
        {"stop_grace_period": "45"},
    ],
    ids=str,
)
def test_a_mistake_is_found(change: dict[str, Any]) -> None:
    file = load("compose.yaml")
    file["services"]["prometheus"].update(change)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(file, SCHEMA)


def test_everything_that_is_named_exists(services: Any) -> None:
    file = load("compose.yaml")
    used: set[str] = set()
    for service in services.values():
        for what in mounts(service).values():
            if what.startswith("."):
                assert (DOCKER / what).exists(), what
            else:
                used.add(what)
        assert set(service.get("depends_on", [])) <= set(services)
        assert set(service.get("secrets", [])) <= set(file["secrets"])
    assert used == set(file["volumes"])
    for name in ("compose.yaml", "compose.gpu.yaml"):
        build = load(name)["services"]["gateway"]["build"]
        assert (DOCKER / build["context"] / build["dockerfile"]).is_file()


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_the_gateway_gets_settings_that_exist(name: str) -> None:
    gateway = load(name)["services"]["gateway"]
    known = {field.upper() for field in Settings.model_fields} | {"HF_TOKEN"}
    assert set(gateway["environment"]) <= known
    stage = read_dockerfile(DOCKER / gateway["build"]["dockerfile"].rpartition("/")[2])[-1]
    image = pairs(stage.only("ENV").rest, {"PATH": ""})
    if "ports" in gateway:
        assert gateway["ports"][0].endswith(f":{image['PORT']}")
        assert set(mounts(gateway)) == set(stage.only("VOLUME").argv())


def test_the_gateway_has_time_to_drain(services: Any) -> None:
    gateway = services["gateway"]
    grace = float(gateway["stop_grace_period"].rstrip("s"))
    assert grace > float(gateway["environment"]["DRAIN_TIMEOUT_S"]) + 2 * FLUSH_S
    assert gateway["read_only"]


def test_secrets_have_no_default(services: Any) -> None:
    """Nothing starts with a key that is written in a file."""
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if re.search("KEY|PASSWORD|TOKEN", name):
                assert re.fullmatch(r"(\$\{[A-Z_]+:\?[^}]+\},?)+", value), name


def test_prometheus_scrapes_the_gateway(services: Any) -> None:
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    (job,) = [x for x in config["scrape_configs"] if x["job_name"] == "gateway"]
    host, _, port = job["static_configs"][0]["targets"][0].partition(":")
    assert services[host]["ports"][0].endswith(f":{port}")
    key = job["authorization"]["credentials_file"]
    assert key.removeprefix("/run/secrets/") in services["prometheus"]["secrets"]
    assert load("compose.yaml")["secrets"]["metrics_key"] == {"environment": "METRICS_KEY"}
    # A key that Prometheus has only for metrics must not become one for everything.
    assert "METRICS_KEY" not in json.dumps(services["gateway"])
    mounted = mounts(services["prometheus"])
    assert "--config.file=/etc/prometheus/prometheus.yml" in services["prometheus"]["command"]
    for pattern in config["rule_files"]:
        folder = f"/etc/prometheus/{Path(pattern).parent}"
        assert list((DOCKER / mounted[folder]).glob(Path(pattern).name)), pattern


def test_grafana_finds_its_dashboard_and_prometheus(services: Any) -> None:
    provisioning = MONITORING / "grafana/provisioning"
    (file,) = (provisioning / "dashboards").glob("*.yaml")
    provider = yaml.safe_load(file.read_text())["providers"][0]
    mounted = mounts(services["grafana"])
    (dashboard,) = [x for x in mounted if Path(x).parent == Path(provider["options"]["path"])]
    board = json.loads((DOCKER / mounted[dashboard]).read_text())
    (file,) = (provisioning / "datasources").glob("*.yaml")
    source = yaml.safe_load(file.read_text())["datasources"][0]
    assert source["uid"] in json.dumps(board)
    host, port = re.fullmatch(r"http://([a-z]+):(\d+)", source["url"]).groups()
    assert services[host]["ports"][0].endswith(f":{port}")
