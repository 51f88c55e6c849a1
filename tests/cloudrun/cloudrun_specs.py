"""Specs for the tests, and the command line that reads them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from deploy.cloudrun.spec import Spec, load_spec

SHIPPED = Path(__file__).parents[2] / "deploy/cloudrun"
CPU: dict[str, Any] = yaml.safe_load((SHIPPED / "cpu.yaml").read_text())
L4: dict[str, Any] = yaml.safe_load((SHIPPED / "l4.yaml").read_text())


def changed(base: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A copy with some fields changed; None removes one, a mapping is merged."""
    found = copy.deepcopy(base)
    for name, value in fields.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, dict) and isinstance(found.get(name), dict):
            found[name] = {k: v for k, v in {**found[name], **value}.items() if v is not None}
        else:
            found[name] = value
    return found


def write(folder: Path, content: dict[str, Any]) -> Path:
    file = folder / "spec.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def loaded(folder: Path, content: dict[str, Any]) -> Spec:
    return load_spec(write(folder, content))


def cloudrun(*arguments: str) -> Result:
    """``llm-gateway deploy cloudrun`` with these arguments."""
    from gateway.cli import app

    return CliRunner().invoke(app, ["deploy", "cloudrun", *arguments])
