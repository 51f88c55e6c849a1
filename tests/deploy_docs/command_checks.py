"""Whether a shell command is one that exists: its program, its options, its paths."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import typer.main
from cloud_options import KNOWN, UNCHECKED
from shell_commands import Command

from gateway.cli import app
from gateway.control.identity.access import ROUTES

ROOT = Path(__file__).parents[2]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OWN_PATH = re.compile(r"^(?:\./)?((?:k8s|deploy|docs|scripts|benchmarks|tests)/[\w./-]*)")
VALUED = {"-H", "--header", "-d", "--data", "--data-binary", "-o", "-w", "-m", "-X", "--max-time"}
VALUED |= {"--retry", "--retry-delay"}
PATTERNS = [re.sub(r"\\\{[^}]*\\\}", "[^/]+", re.escape(path)) for path, _ in ROUTES]


def check(command: Command) -> None:
    """Raises AssertionError that says what is wrong."""
    program, *arguments = command.words
    if "exec" in arguments and "llm-gateway" in arguments:
        inside = arguments.index("llm-gateway")
        check(Command(command.page, tuple(arguments[inside:])))
        del arguments[inside:]
    if program == "llm-gateway":
        parse(arguments)
    elif program == "make":
        named = [word for word in arguments if "=" not in word and not word.startswith("-")]
        assert named, "make without a target"
        assert set(named) <= TARGETS, f"no such target: {set(named) - TARGETS}"
    elif program == "curl":
        check_curl(arguments)
    elif program in KNOWN:
        KNOWN[program].check(arguments)
    else:
        assert program in UNCHECKED, f"{program}: is this a program that readers have?"
    for word in arguments:
        for text in (word, word.partition("=")[2]):
            if match := OWN_PATH.match(text):
                assert (ROOT / match[1]).exists(), f"{match[1]} does not exist"


def parse(arguments: list[str]) -> None:
    """As the command itself would, up to the point where it would begin."""
    root = typer.main.get_command(app)
    without_effect(root)
    said = io.StringIO()
    with redirect_stderr(said), redirect_stdout(io.StringIO()), pytest.raises(SystemExit) as ended:
        root(arguments)
    assert not ended.value.code, " ".join(said.getvalue().split())


def without_effect(command: Any) -> None:
    for inner in getattr(command, "commands", {}).values():
        without_effect(inner)
        if not hasattr(inner, "commands"):
            inner.callback = lambda **_: None


def check_curl(arguments: list[str]) -> None:
    words = iter(arguments)
    addresses = []
    for word in words:
        if word in VALUED:
            next(words)
        elif not word.startswith("-"):
            addresses.append(word)
    assert len(addresses) == 1, f"one address, not {addresses}"
    path = re.sub(r"^(?:https?://)?[^/]*", "", addresses[0]).partition("?")[0]
    path = path.partition("/invoke")[2] or path
    foreign = re.match(
        r"https://[\w.-]*\.(?:googleapis\.com|prediction\.vertexai\.goog)", addresses[0]
    )
    assert foreign or is_route(path), f"the gateway has no route {path!r}"


def is_route(path: str) -> bool:
    return any(re.fullmatch(pattern, path) for pattern in PATTERNS)
