"""What of a prompt's beginning decides on a target."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, slots=True)
class PrefixRules:
    """Of one model.

    Attributes:
        tokens: that count, where a tokenizer is known; whole blocks of them.
        block: tokens of a block of the servers' KV caches; vLLM's usual one has 16.
        tokenizer: ``bundled``, the absolute path of a folder with ``tokenizer.json`` or of that
            file, or a model's id on the hub; None: that of a target in this process, if there is
            one.
        chars: that count where no tokenizer is known.
    """

    tokens: int = 256
    block: int = 16
    tokenizer: str | None = None
    chars: int = 1024


USUAL_PREFIX = PrefixRules()


def tokenizer_named(named: str, folder: Path) -> str:
    """What a file in ``folder`` means by ``named``, as ``PrefixRules.tokenizer`` has it. Raises
    ValueError with the fix."""
    if named == "bundled":
        return named
    path = (folder / Path(named).expanduser()).absolute()
    if tokenizer_file(path).is_file():
        return str(path)
    if path.exists() or not _HUB_ID.fullmatch(named):
        raise ValueError(
            "there is no tokenizer.json; give the path of a folder that has one, or of the file, "
            "a model's id on the hub, or bundled"
        )
    return named


def tokenizer_file(path: Path) -> Path:
    """The file that a path means."""
    return path / "tokenizer.json" if path.is_dir() else path
