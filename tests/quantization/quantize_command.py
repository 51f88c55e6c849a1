"""What ``llm-gateway model`` printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)

    @property
    def refusal(self) -> str:
        """The one sentence of a command that failed."""
        assert self.code == 1, self.out
        said = [line for line in self.err.splitlines() if line.startswith("llm-gateway: ")]
        assert len(said) == 1, self.err
        assert "Traceback" not in self.err
        return said[0]


Command = Callable[..., Outcome]


def refuse(
    command: Command, source: object, out: Path, *more: object, method: str = "static"
) -> str:
    """What ``model quantize`` says when it fails, having left nothing behind."""
    before = sorted(out.parent.iterdir())
    said = command("quantize", source, "--method", method, "--out", out, *more).refusal
    left = [path for path in out.parent.iterdir() if path not in before]
    assert not [path for path in left if path.name != "cache"]
    return said
