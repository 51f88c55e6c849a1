"""The shipped dashboard, as Grafana reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from alert_cases import RULES

DASHBOARD: dict[str, Any] = json.loads((RULES.parent / "grafana" / "dashboard.json").read_text())
# What Grafana puts in place of its variables; of the data source there is one.
VARIABLES = {
    "$__rate_interval": "1m",
    "$job": "gateway",
    "$instance": ".*",
    "$model": ".*",
}


def panels() -> list[dict[str, Any]]:
    """All panels but the rows."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Title of the panel, and what it asks Prometheus."""
    for panel in panels():
        for target in panel["targets"]:
            yield panel["title"], filled_in(target["expr"])
    for annotation in DASHBOARD["annotations"]["list"]:
        yield annotation["name"], filled_in(annotation["expr"])


def filled_in(text: str) -> str:
    """A query with its variables replaced."""
    for name, value in VARIABLES.items():
        text = text.replace(name, value)
    return text
