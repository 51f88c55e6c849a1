"""Dockerfiles as lists of steps, read strictly: what is not known here is an error.

The grammar is Docker's reference for Dockerfiles; heredocs, ADD, ONBUILD and SHELL are left out,
since ours have none.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FLAGS = {
    "ARG": set(),
    "CMD": set(),
    "COPY": {"from", "chown", "chmod"},
    "ENTRYPOINT": set(),
    "ENV": set(),
    "EXPOSE": set(),
    "FROM": set(),
    "HEALTHCHECK": {"interval", "timeout", "start-period", "retries"},
    "LABEL": set(),
    "RUN": {"mount"},
    "STOPSIGNAL": set(),
    "USER": set(),
    "VOLUME": set(),
    "WORKDIR": set(),
}
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::([-+])([^}]*))?\})")


@dataclass(frozen=True)
class Step:
    """One instruction. ``rest`` is what follows its flags, not expanded."""

    op: str
    flags: tuple[tuple[str, str], ...]
    rest: str
    line: int

    def flag(self, name: str, default: str = "") -> str:
        return dict(self.flags).get(name, default)

    def argv(self) -> list[str]:
        """The JSON list of an instruction in exec form."""
        found = json.loads(self.rest)
        if not (isinstance(found, list) and all(isinstance(each, str) for each in found)):
            raise ValueError(f"line {self.line}: {self.op} is not a list of strings")
        return found


@dataclass
class Stage:
    """``FROM base AS name`` and the steps below it."""

    base: str
    name: str
    steps: list[Step] = field(default_factory=list)

    def only(self, op: str) -> Step:
        """The one step of a kind."""
        (found,) = [step for step in self.steps if step.op == op]
        return found


def read_dockerfile(path: Path, args: Mapping[str, str] | None = None) -> list[Stage]:
    """The stages of a Dockerfile, with ``args`` in place of the defaults of its ARGs."""
    given = dict(args or {})
    values: dict[str, str] = {}
    stages: list[Stage] = []
    for step in steps_of(path.read_text()):
        if step.op == "FROM":
            found = re.fullmatch(r"(\S+)(?: AS (\w+))?", expand(step.rest, values))
            assert found, f"{path}:{step.line}: FROM {step.rest}"
            stages.append(Stage(found[1], found[2] or f"stage{len(stages)}"))
        elif stages:
            stages[-1].steps.append(step)
        else:
            assert step.op == "ARG", f"{path}:{step.line}: {step.op} before FROM"
            name, _, default = step.rest.partition("=")
            values[name] = given.get(name, default)
    return stages


def steps_of(text: str) -> list[Step]:
    """Instructions, with continued lines joined and comments left out."""
    steps: list[Step] = []
    pending, began = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line.lstrip().startswith("#") or (not pending and not line.strip()):
            continue
        began = began if pending else number
        if line.endswith("\\"):
            pending += line[:-1]
            continue
        steps.append(step_of(pending + line, began))
        pending = ""
    assert not pending, f"line {began} is continued beyond the end"
    return steps


def step_of(text: str, line: int) -> Step:
    op, _, rest = text.strip().partition(" ")
    assert op in FLAGS, f"line {line}: unknown instruction {op}"
    flags: list[tuple[str, str]] = []
    rest = rest.strip()
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ")
        name, _, value = flag[2:].partition("=")
        assert name in FLAGS[op], f"line {line}: {op} has no --{name}"
        flags.append((name, value))
        rest = rest.strip()
    return Step(op, tuple(flags), rest, line)


def expand(text: str, values: Mapping[str, str]) -> str:
    """``$NAME``, ``${NAME}``, ``${NAME:-default}`` and ``${NAME:+other}``, as Docker does it."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        own = values.get(name, "")
        if found[3] == "-":
            return own or found[4]
        if found[3] == "+":
            return found[4] if own else ""
        assert found[3] or name in values, f"${name} is not set"
        return own

    return _VARIABLE.sub(value, text)


def pairs(text: str, values: Mapping[str, str]) -> dict[str, str]:
    """``NAME=value NAME="two words"``, expanded, of ENV and LABEL."""
    found = {}
    for word in shlex.split(text):
        name, equals, value = word.partition("=")
        assert equals, f"{word} is not NAME=VALUE"
        found[name] = expand(value, values)
    return found


def mount_of(text: str) -> dict[str, str]:
    """The options of ``RUN --mount=type=cache,target=/x``."""
    return dict(part.partition("=")[::2] for part in text.split(","))  # type: ignore[misc]
