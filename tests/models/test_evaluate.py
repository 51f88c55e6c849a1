"""The checkers and the score table."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.models.evaluate import Check, EvalItem, EvalTable, Messages, Tools, evaluate, satisfies


@pytest.mark.parametrize(
    ("answer", "kind", "expected", "holds"),
    [
        ("The capital is PARIS.", "contains", ["paris"], True),
        ("The capital is PARIS.", "contains_exact", ["Paris"], False),
        ("27 + 45 = 72.", "number", 72, True),
        ("45-12 = 33", "number", 33, True),
        ("12 - 45 = -33.", "number", -33, True),
        ("12 - 45 = 33.", "number", -33, False),
        ("No idea.", "number", 3, False),
        ("It is spelled c-a-t.", "letters", "cat", True),
        ("It is t-a-c.", "letters", "cat", False),
        ("Paris", "exact", "Paris", True),
        ('{"age": 36, "name": "Ada"}', "json", {"name": "Ada", "age": 36}, True),
        ('Here: {"a": 1}', "json", {"a": 1}, False),
        ("Ahoy! Hello.", "starts", "Ahoy", True),
        ("Goodbye. Over", "ends", "Over", True),
        ("<think>\n5 + 2\n</think>\n\n7.", "exact", "7.", True),
    ],
)
def test_checks(answer: str, kind: str, expected: Any, holds: bool) -> None:
    assert satisfies(answer, Check(kind, expected)) is holds


def test_tool_call_must_match_and_must_not_appear_elsewhere() -> None:
    body = {"name": "get_weather", "arguments": {"city": "Rome"}}
    good = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert satisfies(good, Check("tool_call", body))
    assert not satisfies(good.replace("Rome", "Oslo"), Check("tool_call", body))
    assert not satisfies("<tool_call>\n{broken\n</tool_call>", Check("tool_call", body))
    assert not satisfies(good, Check("contains", ["Rome"]))


def test_unknown_check_is_an_error() -> None:
    with pytest.raises(ValueError, match="unknown check"):
        satisfies("x", Check("magic", None))


def test_evaluate_scores_per_skill() -> None:
    async def generate(messages: Messages, tools: Tools) -> str:
        return str(messages[-1]["content"])

    def item(skill: str, said: str, wanted: str) -> EvalItem:
        return EvalItem(skill, [{"role": "user", "content": said}], None,
                        (Check("exact", wanted),))  # fmt: skip

    items = [item("facts", "a", "a"), item("facts", "b", "c"), item("words", "d", "d")]
    table = asyncio.run(evaluate(generate, items))
    assert isinstance(table, EvalTable)
    assert {score.skill: score.accuracy for score in table.scores} == {"facts": 0.5, "words": 1.0}
    assert table.overall == pytest.approx(2 / 3)
    assert not table.passed
    assert [failure.answer for failure in table.failures] == ["b"]
    assert "facts" in table.render()
    assert "66.7%" in table.render()
