"""docs/deploy/vertex.md describes the spec that there is, and names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel

from deploy.vertex import machines, spec, spec_parts

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy" / "vertex.md").read_text(encoding="utf-8")


def test_every_field_is_described() -> None:
    parts = [
        part
        for module in (spec, spec_parts)
        for part in vars(module).values()
        if isinstance(part, type) and issubclass(part, BaseModel)
    ]
    fields = {name for part in parts for name in part.model_fields}
    assert len(fields) > 50
    assert {name for name in fields if not re.search(rf"`{name}[`:]", PAGE)} == set()


def test_every_accelerator_is_described() -> None:
    assert [name for name in machines.ACCELERATORS if f"`{name}`" not in PAGE] == []


def test_every_test_that_is_named_exists() -> None:
    named = re.findall(r"`(tests/vertex/[\w.]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) > 10
    for file, name in named:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert not name or f"def {name}(" in text, f"{file}::{name}"
