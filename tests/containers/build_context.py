"""The files that a build may copy, as .dockerignore has it."""

from __future__ import annotations

import fnmatch
from pathlib import Path


class Context:
    """The files of a build context that .dockerignore lets through."""

    def __init__(self, root: Path):
        self.root = root
        ignore = root / ".dockerignore"
        lines = ignore.read_text().splitlines() if ignore.exists() else []
        self._rules = [x.strip() for x in lines if x.strip() and not x.startswith("#")]

    def file(self, source: str) -> Path:
        assert not self.ignored(source), f"{source} is kept out by .dockerignore"
        return self.root / source

    def ignored(self, path: str) -> bool:
        """The last rule that matches the path or a folder above it decides."""
        parts = path.split("/")
        above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
        out = False
        for rule in self._rules:
            pattern = rule.removeprefix("!").rstrip("/")
            if any(matches(each, pattern) for each in above):
                out = not rule.startswith("!")
        return out

    def files(self, source: str) -> list[Path]:
        """All files at or below ``source``, relative to the root."""
        top = self.root / source
        found = [top] if top.is_file() else sorted(x for x in top.rglob("*") if x.is_file())
        relative = [each.relative_to(self.root) for each in found]
        return [each for each in relative if not self.ignored(each.as_posix())]


def matches(path: str, pattern: str) -> bool:
    """``*`` stays within one part of a path; ``**/`` in front means any depth."""
    wanted, parts = pattern.split("/"), path.split("/")
    if wanted[0] == "**":
        wanted, parts = wanted[1:], parts[-len(wanted) + 1 :]
    return len(wanted) == len(parts) and all(map(fnmatch.fnmatchcase, parts, wanted))
