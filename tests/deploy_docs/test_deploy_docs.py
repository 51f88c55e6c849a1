"""Every shell command in docs/deploy is one that exists: its program, its options, its paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_checks import ROOT, check
from shell_commands import Command, commands_of

PAGES = sorted((ROOT / "docs" / "deploy").glob("*.md"))
COMMANDS = [command for page in PAGES for command in commands_of(page)]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_can_be_given_as_the_page_shows_it(command: Command) -> None:
    check(command)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_page_has_a_block_that_would_go_unchecked(page: Path) -> None:
    kinds = re.findall(r"^```(\w*)$", page.read_text(), re.MULTILINE)[::2]
    assert not {"bash", "shell", "console"} & set(kinds), "commands belong in ```sh blocks"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("llm-gateway deploy nowhere", "No such command"),
        ("llm-gateway serve --colour blue", "No such option"),
        ("llm-gateway triton export bundled", "Missing argument"),
        ("make coffee", "no such target"),
        ("curl -sN localhost:8000/v1/chat/completion -d {}", "no route"),
        ("kubectl apply -k k8s/overlays/moon", "does not exist"),
        ("kubectl apply --kustomise k8s", "--kustomise is not listed"),
        ("gcloud ai endpoints conquer", "none of"),
        ("abracadabra", "a program that readers have"),
    ],
)
def test_a_wrong_command_is_found(words: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check(Command("page", tuple(words.split())))


def test_commands_are_found_wherever_they_stand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\n"
        "# first\n"
        "A=1 one --two \\\n  three | four > file && five\n"
        'six "$(seven --eight $(nine))"  # not this\n'
        "ten 'of\nseveral lines'\n"
        "```\n"
        "```text\nnot this either\n```\n"
    )
    assert [command.words for command in commands_of(page)] == [
        ("one", "--two", "three"),
        ("four",),
        ("five",),
        ("nine",),
        ("seven", "--eight", "$INNER"),
        ("six", "$INNER"),
        ("ten", "of\nseveral lines"),
    ]
