"""Reads the shell commands of a documentation page: those in its ``sh`` blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
ASSIGNMENT = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*=")
REDIRECTIONS = {">", ">>", "<", "2>", ">&", "<<<"}
KEYWORDS = {"while", "until", "do", "done", "if", "then", "fi", "!", "time", "exec"}


@dataclass(frozen=True, slots=True)
class Command:
    """One program call as the page shows it: ``words[0]`` is the program."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def commands_of(page: Path) -> list[Command]:
    """Every call of a program, those in ``$(...)`` and behind pipes among them."""
    found = []
    for block in BLOCK.findall(page.read_text()):
        for line in logical_lines(block):
            found += [Command(page.name, tuple(words)) for words in calls(line)]
    return found


def logical_lines(block: str) -> Iterator[str]:
    """Lines with their continuations, and with strings that go over several."""
    pending = ""
    for line in block.splitlines():
        pending += line.removesuffix("\\") + (" " if line.endswith("\\") else "\n")
        if line.endswith("\\") or is_open(pending):
            continue
        if pending.strip():
            yield pending.strip()
        pending = ""
    assert not pending.strip(), f"a block ends within a command: {pending!r}"


def is_open(text: str) -> bool:
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False


def calls(line: str) -> Iterator[list[str]]:
    line, inner = without_substitutions(line)
    for text in inner:
        yield from calls(text)
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words: list[str] = []
    tokens = iter(lexer)
    for token in tokens:
        if set(token) <= set("|&;()"):
            yield from without_prefix(words)
            words = []
        elif token in REDIRECTIONS:
            next(tokens, None)
        else:
            words.append(token)
    yield from without_prefix(words)


def without_substitutions(line: str) -> tuple[str, list[str]]:
    """The line with each outermost ``$(...)`` replaced, and what stood in them. Nothing is
    special within single quotes."""
    outer, inner = "", []
    depth, quoted, begin, position = 0, False, 0, 0
    while position < len(line):
        quoted ^= line[position] == "'"
        if not quoted and line.startswith("$(", position):
            depth += 1
            position += 2
            begin = position if depth == 1 else begin
            continue
        if not quoted and depth and line[position] == ")":
            depth -= 1
            if not depth:
                inner.append(line[begin:position])
                outer += "$INNER"
        elif not depth:
            outer += line[position]
        position += 1
    assert not depth, f"a $( without its end: {line!r}"
    return outer, inner


def without_prefix(words: list[str]) -> Iterator[list[str]]:
    while words and (ASSIGNMENT.match(words[0]) or words[0] in KEYWORDS):
        words = words[1:]
    if words:
        yield [words[0].removeprefix(".venv/bin/"), *words[1:]]
