"""How every command of the terminal ends when it cannot go on."""

from __future__ import annotations

import sys
from typing import NoReturn

import typer


def fail(message: str) -> NoReturn:
    """End with one readable message and exit code 1."""
    sys.stderr.write(f"llm-gateway: {message}\n")
    raise typer.Exit(1)
