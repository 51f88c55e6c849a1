"""Scores a chat model on the held-out skill prompts: what `llm-gateway model eval` prints.

Nothing here knows about an engine or a tensor library. The caller passes `generate`, a coroutine
that answers one conversation with the model's raw greedy text (tool-call tags included), so one
table compares the same items through every engine.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Messages = list[dict[str, Any]]
Tools = list[dict[str, Any]] | None
Generate = Callable[[Messages, Tools], Awaitable[str]]

SKILLS: tuple[str, ...] = (
    "greeting",
    "persona",
    "memory",
    "arithmetic",
    "facts",
    "words",
    "json",
    "tool_call",
    "tool_result",
    "unknown",
)
MIN_OVERALL = 0.90
MIN_PER_SKILL = 0.80


@dataclass(frozen=True)
class Check:
    """One requirement on an answer.

    `kind` names a checker below, `expected` is what it compares with:
    contains (all phrases, ignoring case), contains_exact (all phrases, with case), number (the
    last number in the answer), letters (the answer ends in these letters, however separated),
    exact (the whole answer), json (the parsed value), tool_call ({"name", "arguments"}),
    starts / ends (a prefix / suffix, with case), regex (found anywhere), and json_schema (a
    JSON value that the schema allows; needs the package jsonschema).
    """

    kind: str
    expected: Any


@dataclass(frozen=True)
class EvalItem:
    """One prompt with the skill it exercises and what its answer must satisfy."""

    skill: str
    messages: Messages
    tools: Tools
    checks: tuple[Check, ...]


@dataclass
class SkillScore:
    """Right answers out of all answers for one skill."""

    skill: str
    correct: int = 0
    total: int = 0

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 to 1; 0 for a skill without items."""
        return self.correct / self.total if self.total else 0.0


@dataclass(frozen=True)
class Failure:
    """A wrong answer, kept so that a person can read what went wrong."""

    item: EvalItem
    answer: str


@dataclass(frozen=True)
class EvalTable:
    """Scores per skill, and the wrong answers behind them."""

    scores: tuple[SkillScore, ...]
    failures: tuple[Failure, ...]

    @property
    def overall(self) -> float:
        """Share of right answers over all items, 0 to 1."""
        total = sum(score.total for score in self.scores)
        return sum(score.correct for score in self.scores) / total if total else 0.0

    @property
    def passed(self) -> bool:
        """Whether the overall score and every skill reach the product's thresholds."""
        return self.overall >= MIN_OVERALL and all(
            score.accuracy >= MIN_PER_SKILL for score in self.scores
        )

    def render(self) -> str:
        """The table as aligned text, one skill a line."""
        lines = [f"{'skill':<14}{'correct':>9}{'total':>7}{'accuracy':>10}"]
        lines += [
            f"{score.skill:<14}{score.correct:>9}{score.total:>7}{score.accuracy:>10.1%}"
            for score in self.scores
        ]
        correct = sum(score.correct for score in self.scores)
        total = sum(score.total for score in self.scores)
        lines.append(f"{'overall':<14}{correct:>9}{total:>7}{self.overall:>10.1%}")
        return "\n".join(lines)


_TOOL_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_THINK = re.compile(r"^.*?</think>\s*", re.DOTALL)
_NUMBER = re.compile(r"-?\d+")


def visible(answer: str) -> str:
    """The answer without a leading thinking block and without surrounding white space."""
    return _THINK.sub("", answer, count=1).strip()


def tool_calls(answer: str) -> list[Any]:
    """The parsed bodies of all tool-call blocks; a body that is not JSON becomes None."""
    return [_parse(body) for body in _TOOL_CALL.findall(answer)]


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _allowed(text: str, schema: Any) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    validator = importlib.import_module("jsonschema").validators.validator_for(schema)
    return bool(validator(schema).is_valid(value))


def _last_number(text: str) -> int | None:
    # "45 - 12" must not read as the number -12, but "= -22" must.
    numbers = _NUMBER.findall(re.sub(r"(?<=\d)\s*-\s*(?=\d)", " ", text))
    return int(numbers[-1]) if numbers else None


def _only_letters(text: str) -> str:
    return re.sub(r"[^a-z]", "", text.lower())


def satisfies(answer: str, check: Check) -> bool:
    """Whether one check holds for a raw answer."""
    text, expected = visible(answer), check.expected
    if check.kind == "tool_call":
        return tool_calls(text) == [expected]
    if "<tool_call>" in text:
        return False
    match check.kind:
        case "contains":
            return all(phrase.lower() in text.lower() for phrase in expected)
        case "contains_exact":
            return all(phrase in text for phrase in expected)
        case "number":
            return bool(_last_number(text) == expected)
        case "letters":
            return _only_letters(text).endswith(str(expected))
        case "exact":
            return bool(text == expected)
        case "json":
            return bool(_parse(text) == expected)
        case "starts":
            return text.startswith(str(expected))
        case "ends":
            return text.rstrip(".!").endswith(str(expected))
        case "regex":
            return re.search(expected, text) is not None
        case "json_schema":
            return _allowed(text, expected)
    raise ValueError(f"unknown check kind {check.kind!r}")


def is_correct(answer: str, item: EvalItem) -> bool:
    """Whether an answer satisfies every check of its item."""
    return all(satisfies(answer, check) for check in item.checks)


async def evaluate(
    generate: Generate, items: Iterable[EvalItem], concurrency: int = 8
) -> EvalTable:
    """Answers every item through `generate`, at most `concurrency` at once, and scores them."""
    items = list(items)
    gate = asyncio.Semaphore(concurrency)

    async def answer(item: EvalItem) -> str:
        async with gate:
            return await generate(item.messages, item.tools)

    answers = await asyncio.gather(*(answer(item) for item in items))
    return score(items, answers)


def score(items: Sequence[EvalItem], answers: Sequence[str]) -> EvalTable:
    """Scores answers that were produced elsewhere, in the order of the items."""
    scores = {skill: SkillScore(skill) for skill in SKILLS}
    failures: list[Failure] = []
    for item, text in zip(items, answers, strict=True):
        entry = scores.setdefault(item.skill, SkillScore(item.skill))
        entry.total += 1
        if is_correct(text, item):
            entry.correct += 1
        else:
            failures.append(Failure(item, text))
    return EvalTable(tuple(entry for entry in scores.values() if entry.total), tuple(failures))
