"""The shipped rules, and the cases of ``alert_cases.yaml`` in promtool's format."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RULES = ROOT / "deploy" / "monitoring" / "rules"
SELF = 'job="gateway", instance="a"'
LABEL = re.compile(r'(\w+)="')

Document = dict[str, Any]


@functools.cache
def rules(kind: str) -> list[Document]:
    """The shipped rules that are an ``alert``, or a ``record``."""
    documents = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.yaml"))]
    return [
        rule
        for document in documents
        for group in document["groups"]
        for rule in group["rules"]
        if kind in rule
    ]


@functools.cache
def cases() -> dict[str, Document]:
    """What is said of each alert."""
    found: dict[str, Document] = yaml.safe_load((HERE / "alert_cases.yaml").read_text())
    return found


@dataclass(frozen=True)
class Series:
    """A series of the cases: its metric and the names of its labels."""

    metric: str
    labels: frozenset[str]


def used_series() -> set[Series]:
    """Every series that the cases give to the rules."""
    found = set()
    for case in cases().values():
        for scenario in [case["fires"], *case.get("also", []), *case["quiet"]]:
            for text in scenario["series"]:
                name, _, labels = text.replace("@", SELF).partition("{")
                found.add(Series(name, frozenset(LABEL.findall(labels))))
    return found


def rules_for(alert: Document) -> Document:
    """A file of rules with an alert and the series that it is made of, as they are shipped."""
    recorded = [rule for rule in rules("record") if rule["record"] in alert["expr"]]
    return {"groups": [{"name": "tested", "rules": [*recorded, alert]}]}


def cases_for(alert: Document, rule_file: str) -> Document:
    """The cases of an alert in promtool's format."""
    name = alert["alert"]
    case = cases()[name]
    fired = {
        "exp_labels": case["labels"] | alert["labels"],
        "exp_annotations": alert["annotations"] | {"description": case["says"]},
    }
    every = case.get("interval", "1m")
    firing = [case["fires"], *case.get("also", [])]
    return {
        "rule_files": [rule_file],
        "evaluation_interval": every,
        "tests": [
            *(scenario(name, one, [fired], every) for one in firing),
            *(scenario(name, one, [], every) for one in case["quiet"]),
        ],
    }


def scenario(name: str, given: Document, expected: list[Document], every: str) -> Document:
    """One test of promtool."""
    for values in given["series"].values():
        assert isinstance(values, str), f"{name}: YAML takes {values} for a number; quote it"
    return {
        "interval": every,
        "input_series": [
            {"series": series.replace("@", SELF), "values": values}
            for series, values in given["series"].items()
        ],
        "alert_rule_test": [
            {"eval_time": given["at"], "alertname": name, "exp_alerts": expected},
        ],
    }
