"""The dashboard is one that Grafana can show, and is where the compose file looks for it."""

from __future__ import annotations

import itertools
import re
from pathlib import PurePosixPath
from typing import Any

import yaml
from alert_cases import ROOT, RULES, rules
from grafana_dashboard import DASHBOARD, panels, queries

MONITORING = RULES.parent
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
METRIC = re.compile(r"\b((?:gateway_|vllm:|process_)[a-z0-9_]+)[{ \[]")
SUFFIXES = re.compile(r"_(bucket|count|sum)$")


def read(path: str) -> Any:
    return yaml.safe_load((MONITORING / path).read_text())


def compose() -> Any:
    return yaml.safe_load((ROOT / "deploy" / "docker" / "compose.yaml").read_text())


def mounts(service: str) -> dict[str, str]:
    """Source by target of what the compose file mounts from deploy/monitoring."""
    volumes = compose()["services"][service]["volumes"]
    split = (volume.split(":") for volume in volumes if volume.startswith("../monitoring/"))
    return {target: source for source, target, _ in split}


def test_every_panel_has_an_id_a_title_and_what_it_shows() -> None:
    everything = DASHBOARD["panels"]
    ids = [panel["id"] for panel in everything]
    titles = [panel["title"] for panel in panels()]
    assert len(set(ids)) == len(ids) > 80
    assert len(set(titles)) == len(titles)
    for panel in panels():
        assert panel["datasource"] == SOURCE, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        refs = [target["refId"] for target in panel["targets"]]
        assert refs
        assert len(set(refs)) == len(refs), panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == SOURCE, panel["title"]
            # A table shows this moment, a curve a stretch of time.
            assert target["instant"] is (panel["type"] == "table"), panel["title"]


def test_nothing_covers_anything_else() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["w"] > 0
        assert at["h"] > 0
        assert at["x"] + at["w"] <= COLUMNS, panel["title"]
        columns = range(at["x"], at["x"] + at["w"])
        for cell in itertools.product(columns, range(at["y"], at["y"] + at["h"])):
            other = taken.setdefault(cell, panel["title"])
            assert other == panel["title"], f"{panel['title']} covers {other}"


def test_variables_are_used_and_known() -> None:
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    text = str(DASHBOARD["panels"]) + str(DASHBOARD["annotations"])
    used = set(re.findall(r"\$\{?(\w+)", text)) - {"__rate_interval"}
    assert used == names
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            assert variable["datasource"] == SOURCE
            assert variable["query"]["query"] == variable["definition"]


def test_it_asks_for_documented_metrics_and_recorded_series() -> None:
    documented = (ROOT / "docs" / "metrics.md").read_text()
    recorded = {rule["record"] for rule in rules("record")}
    asked = set()
    for _, query in queries():
        rest = query
        for series in recorded:
            rest = rest.replace(f"{series}{{", "{")
        assert not re.search(r"\w:(?:gateway|vllm)_", rest), f"no such recorded series: {query}"
        asked |= {SUFFIXES.sub("", name) for name in METRIC.findall(rest)}
    asked = {name for name in asked if not name.startswith("process_")}
    assert len(asked) > 50
    assert not {name for name in asked if f"`{name}`" not in documented}


def test_every_gateway_metric_is_on_it_or_in_an_alert() -> None:
    """What is measured can be seen somewhere."""
    documented = (ROOT / "docs" / "metrics.md").read_text()
    text = " ".join(query for _, query in queries())
    text += " ".join(rule["expr"] for kind in ("alert", "record") for rule in rules(kind))
    names = re.findall(r"^\| `(gateway_\w+)`", documented, flags=re.MULTILINE)
    assert len(names) > 40
    unseen = {name for name in names if name not in text}
    # How many entries says less than their size, and reloads have alerts of their own.
    assert unseen == {
        "gateway_response_cache_entries",
        "gateway_config_last_reload_success_timestamp_seconds",
    }


def test_the_page_counts_right_and_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "deploy" / "monitoring.md").read_text()
    assert f"{len(rules('alert'))} alerts" in page
    assert f"{len(panels())} panels in eleven rows" in page
    assert len(DASHBOARD["panels"]) - len(panels()) == 11
    proofs = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    assert len(proofs) >= 9
    for path, name in proofs:
        assert f"def {name}(" in (ROOT / path).read_text(), name
    alerts = {rule["alert"] for rule in rules("alert")}
    named = set(re.findall(r"\bGateway[A-Z]\w+", page))
    assert len(named) > 10
    assert named <= alerts


def test_grafana_finds_the_dashboard_and_prometheus() -> None:
    mounted = mounts("grafana")
    assert mounted["/etc/grafana/provisioning"] == "../monitoring/grafana/provisioning"
    (provider,) = read("grafana/provisioning/dashboards/llm-gateway.yaml")["providers"]
    (file,) = [target for target in mounted if target.endswith(".json")]
    assert str(PurePosixPath(file).parent) == provider["options"]["path"]
    assert mounted[file] == "../monitoring/grafana/dashboard.json"
    (source,) = read("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    assert source["isDefault"]
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == read("prometheus.yml")["global"]["scrape_interval"]


def test_prometheus_finds_the_gateway_its_key_and_the_rules() -> None:
    mounted = mounts("prometheus")
    assert mounted["/etc/prometheus/prometheus.yml"] == "../monitoring/prometheus.yml"
    assert mounted["/etc/prometheus/rules"] == "../monitoring/rules"
    config = read("prometheus.yml")
    assert config["rule_files"] == ["rules/*.yaml"]
    gateway, own = config["scrape_configs"]
    ports = compose()["services"]["gateway"]["ports"]
    port = ports[0].rpartition(":")[2]
    assert gateway["static_configs"] == [{"targets": [f"gateway:{port}"]}]
    (secret,) = compose()["services"]["prometheus"]["secrets"]
    assert gateway["authorization"] == {"credentials_file": f"/run/secrets/{secret}"}
    assert own["job_name"] == "prometheus"
