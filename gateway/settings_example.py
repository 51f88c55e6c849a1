"""Writes .env.example from the settings, so that the two cannot drift apart."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic_settings import NoDecode

from gateway.settings import Settings


def example() -> str:
    """The text of .env.example: every setting, commented out, with its default."""
    lines = [
        "# Every setting with its default. Copy this file to .env and uncomment what you change.",
        "# The environment takes precedence over .env. Made by: llm-gateway config example",
    ]
    for name, field in Settings.model_fields.items():
        lines += ["", f"# {field.description}", f"# {name.upper()}={shown_default(name)}"]
    return "\n".join(lines) + "\n"


def shown_default(name: str) -> str:
    """A setting's default as .env spells it."""
    field = Settings.model_fields[name]
    if field.default_factory is not None:
        return ""  # it depends on the environment, which takes its place when empty
    default = field.get_default(call_default_factory=True)
    if default is None or (not default and NoDecode in field.metadata):
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, dict):
        return json.dumps(default)
    if isinstance(default, Path):
        return str(default).replace(str(Path.home()), "~", 1)
    return str(default)
