"""What the commands of ``llm-gateway deploy vertex`` share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from gateway.terminal import fail

SpecFile = Annotated[Path, typer.Argument(help="The spec, such as deploy/vertex/l4.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def ask(yes: bool) -> None:
    """Go on with ``--yes``, or when somebody at a terminal says so."""
    if yes:
        return
    if not sys.stdin.isatty():
        fail("this changes the cloud, and there is no terminal to ask at: add --yes")
    typer.confirm("Go on?", abort=True, err=True)
