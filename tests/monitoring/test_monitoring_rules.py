"""The shipped rules: Prometheus takes them, and each alert fires when it should and only then."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from alert_cases import ROOT, RULES, cases, cases_for, rules, rules_for
from grafana_dashboard import DASHBOARD

RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
METRICS = (ROOT / "docs" / "metrics.md").read_text()
SUFFIXES = re.compile(r"_(bucket|count|sum)$")
METRIC = re.compile(r"\b(?:gateway_|vllm:)[a-z0-9_]+\b")

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="there is no promtool on this machine (Debian: prometheus)",
)


def promtool(*arguments: str | Path, cwd: Path) -> str:
    """Runs it; returns what it says when it finds nothing wrong."""
    done = subprocess.run(
        ["promtool", *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_promtool
def test_prometheus_takes_the_files(tmp_path: Path) -> None:
    said = promtool("check", "rules", *RULES.glob("*.yaml"), cwd=tmp_path)
    assert said.count("SUCCESS") == len(list(RULES.glob("*.yaml"))) >= 2
    # The file with the key is there where it is used.
    promtool("check", "config", "--syntax-only", RULES.parent / "prometheus.yml", cwd=tmp_path)


@needs_promtool
def test_each_alert_fires_and_is_quiet(tmp_path: Path) -> None:
    files = [write_tests(alert, tmp_path) for alert in rules("alert")]
    assert promtool("test", "rules", *files, cwd=tmp_path).count("SUCCESS") == len(files)


@needs_promtool
def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    (down,) = [alert for alert in rules("alert") if alert["alert"] == "GatewayDown"]
    file = write_tests(down | {"expr": "up == 1"}, tmp_path)
    with pytest.raises(AssertionError, match="alertname: GatewayDown"):
        promtool("test", "rules", file, cwd=tmp_path)


def write_tests(alert: dict[str, Any], folder: Path) -> str:
    """Writes the cases of an alert, and the rules for them; returns the file's name."""
    rule_file, test_file = f"{alert['alert']}.rules.yaml", f"{alert['alert']}.test.yaml"
    (folder / rule_file).write_text(yaml.safe_dump(rules_for(alert)))
    (folder / test_file).write_text(yaml.safe_dump(cases_for(alert, rule_file)))
    return test_file


def test_each_alert_has_cases_and_says_what_it_must() -> None:
    alerts = rules("alert")
    names = [alert["alert"] for alert in alerts]
    assert len(set(names)) == len(names)
    assert set(names) == set(cases())
    for alert in alerts:
        assert cases()[alert["alert"]]["quiet"], alert["alert"]
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}
        anchor = f"docs/runbook.md#{alert['alert'].lower()}"
        assert alert["annotations"]["runbook_url"] == anchor


def test_the_runbook_has_an_entry_for_each_alert_and_no_other() -> None:
    entries = re.split(r"^### ", RUNBOOK, flags=re.MULTILINE)[1:]
    found = {entry.partition("\n")[0].strip(): entry for entry in entries}
    alerts = {alert["alert"]: alert for alert in rules("alert")}
    assert found.keys() == alerts.keys()
    for name, entry in found.items():
        severity = alerts[name]["labels"]["severity"]
        assert entry.startswith(f"{name}\n\n*{severity}*. "), name
        for part in ("**Look:**", "**Do:**"):
            assert entry.count(part) == 1, (name, part)


def test_the_runbook_names_panels_and_settings_that_exist() -> None:
    prometheus = {"Targets", "Service discovery"}
    titles = {panel["title"] for panel in DASHBOARD["panels"]} | {DASHBOARD["title"]} | prometheus
    shown = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", RUNBOOK))
    assert len(shown) > 20
    assert shown <= titles
    example = (ROOT / ".env.example").read_text()
    settings = set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE))
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)[`=]", RUNBOOK))
    assert len(named) > 15
    assert named <= settings


def test_every_metric_is_documented() -> None:
    expressions = [rule["expr"] for kind in ("alert", "record") for rule in rules(kind)]
    named = {SUFFIXES.sub("", name) for text in expressions for name in METRIC.findall(text)}
    # Names of recorded series have a colon before and after.
    recorded = {rule["record"] for rule in rules("record")}
    named = {name for name in named if not any(f":{name}" in series for series in recorded)} | {
        name for name in named if f"`{name}`" in METRICS
    }
    assert len(named) > 25
    assert not {name for name in named if f"`{name}`" not in METRICS}


def test_recorded_series_are_named_for_what_they_are() -> None:
    for rule in rules("record"):
        level, _, _ = rule["record"].split(":")
        by = re.findall(r"by \(([\w, ]+)\)", rule["expr"])
        labels = {{"model": "model_name"}.get(part, part) for part in level.split("_")}
        assert {*by[0].split(", ")} - {"le"} == labels, rule["record"]
