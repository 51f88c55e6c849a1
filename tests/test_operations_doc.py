"""docs/operations.md promises what tests prove that exist, and watches metrics that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text()
PROOF = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
METRIC = re.compile(r"\b(?:gateway_|vllm:)[a-z_]+\b")


def names_of(path: Path) -> set[str]:
    """What pytest collects from the top of a file: test functions, and state machines by the name
    that their test case is given."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in found if name.startswith(("test_", "Test"))}


def test_every_proof_exists() -> None:
    proofs = PROOF.findall(PAGE)
    assert len(proofs) > 30
    assert PAGE.count("`tests/") == len(proofs), "a proof is not written as `path::name`"
    known: dict[str, set[str]] = {}
    for path, name in proofs:
        assert (ROOT / path).is_file(), path
        names = known.setdefault(path, names_of(ROOT / path))
        assert not name or name in names, f"{path}::{name}"


def test_every_objective_has_a_proof() -> None:
    objectives = PAGE.partition("## Service-level objectives")[2].partition("\n## ")[0]
    rows = [line for line in objectives.splitlines() if line.startswith("| ")]
    rows = [row for row in rows if not row.startswith("| Objective |")]
    assert len(rows) > 25
    for row in rows:
        cells = row.strip("| ").split(" | ")
        assert len(cells) == 3, row
        assert PROOF.search(cells[2]) or cells[2].startswith("measured: `make "), row


def test_every_metric_exists() -> None:
    documented = (ROOT / "docs" / "metrics.md").read_text()
    named = {name.removesuffix("_bucket") for name in METRIC.findall(PAGE)}
    assert len(named) > 15
    missing = {name for name in named if f"`{name}`" not in documented}
    assert not missing
