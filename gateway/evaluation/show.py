"""Runs an evaluation with progress on standard error and its results on standard output."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

from engine.base import EngineStartError
from gateway.evaluation.compare import Wish, compare
from gateway.evaluation.tables import tables
from gateway.stage_progress import stage_progress


def compare_and_show(wish: Wish, cache_dir: Path, out: Path | None, *, as_json: bool) -> None:
    """Evaluate, print and, with ``out``, write.

    Raises:
        EngineError: with the cause and the fix.
    """
    if out is not None:
        check_writable(out)
    with stage_progress() as say:
        found = compare(wish, cache_dir, say)
    document = found.to_json()
    if out is not None:
        write(out, document)
    console = Console()
    if as_json:
        console.print_json(json.dumps(document))
        return
    for table in tables(found):
        console.print(table)


def check_writable(out: Path) -> None:
    """Raise EngineStartError before minutes of work whose result could not be kept."""
    if out.is_dir() or not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise EngineStartError(f"{out} cannot be written: name a file in a folder that exists")


def write(out: Path, document: dict[str, Any]) -> None:
    """Write the JSON; a crash leaves the old file or the new one."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=out.parent, prefix=f".{out.name}.", delete=False
    ) as file:
        json.dump(document, file, indent=2)
        file.write("\n")
    os.chmod(file.name, 0o644)
    os.replace(file.name, out)
