"""Task sets: what a line may hold, what is said of one that is wrong, what answers are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.base import EngineStartError
from engine.evaluation.task_set import read_tasks
from engine.models.evaluate import is_correct, score

ADULT = {
    "type": "object",
    "properties": {"age": {"type": "integer", "minimum": 18}},
    "required": ["age"],
}


def tasks_in(folder: Path, *lines: object) -> Path:
    file = folder / "tasks.jsonl"
    written = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(written), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("expectation", "right", "wrong"),
    [
        ({"answer": " Rome. "}, ["Rome.", "\nRome. "], ["rome.", "It is Rome."]),
        ({"contains": "rome"}, ["It is ROME!"], ["It is Paris."]),
        ({"contains": ["a", "b"]}, ["B and A"], ["a"]),
        ({"regex": r"^\d{2}$"}, ["42", " 42\n"], ["142", "forty-two"]),
        ({"json_schema": ADULT}, ['{"name": "Ada", "age": 36}'], ['{"age": 17}', "age: 36", "{}"]),
        ({"contains": "4", "regex": "2$"}, ["42"], ["24", "22"]),
        ({"answer": "Yes"}, ["<think>hm</think>\nYes"], ["Yes <tool_call>{}</tool_call>"]),
    ],
)
def test_which_answers_are_right(
    tmp_path: Path, expectation: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    (item,) = read_tasks(tasks_in(tmp_path, {"prompt": "?", **expectation}))
    assert [is_correct(answer, item) for answer in right] == [True] * len(right)
    assert [is_correct(answer, item) for answer in wrong] == [False] * len(wrong)


def test_skills_are_scored_apart(tmp_path: Path) -> None:
    line = {"messages": [{"role": "user", "content": "Hi"}], "contains": "hello"}
    items = read_tasks(tasks_in(tmp_path, {**line, "skill": "manners"}, "", line, line))
    assert items[0].messages == line["messages"]
    table = score(items, ["Hello!", "Hello", "No"])
    found = [(entry.skill, entry.correct, entry.total) for entry in table.scores]
    assert found == [("manners", 1, 1), ("tasks", 1, 2)]
    assert table.overall == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ([1], "a JSON object"),
        ({"prompt": "?"}, "nothing is expected of the answer"),
        ({"answer": "x"}, "either 'messages' or 'prompt'"),
        ({"prompt": "?", "messages": [], "answer": "x"}, "either 'messages' or 'prompt'"),
        ({"prompt": 3, "answer": "x"}, "'prompt' must be a text"),
        ({"messages": [], "answer": "x"}, "at least one message"),
        ({"messages": [{"role": "robot", "content": "?"}], "answer": "x"}, "needs a 'role'"),
        ({"messages": [{"role": "user"}], "answer": "x"}, "needs a 'content'"),
        ({"prompt": "?", "answer": ""}, "'answer' must be a text"),
        ({"prompt": "?", "contains": []}, "'contains' must be"),
        ({"prompt": "?", "regex": "("}, "not a regular expression"),
        ({"prompt": "?", "json_schema": {"type": "strange"}}, "not a JSON Schema"),
        ({"prompt": "?", "json_schema": "x"}, "must be a JSON Schema"),
        ({"prompt": "?", "answer": "x", "skill": 1}, "'skill' must be a name"),
        ({"prompt": "?", "answer": "x", "tools": "f"}, "'tools' must be a list"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, line: object, why: str) -> None:
    good = {"prompt": "?", "answer": "x"}
    with pytest.raises(EngineStartError) as caught:
        read_tasks(tasks_in(tmp_path, good, "", line))
    assert "line 3: " in str(caught.value)
    assert why in str(caught.value)


def test_files_without_tasks(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match="there is no"):
        read_tasks(tmp_path / "absent.jsonl")
    with pytest.raises(EngineStartError, match="holds no tasks"):
        read_tasks(tasks_in(tmp_path, ""))
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EngineStartError, match="cannot be read"):
        read_tasks(tmp_path / "binary.jsonl")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineStartError, match="pip install jsonschema"):
        read_tasks(tasks_in(tmp_path, {"prompt": "?", "json_schema": {}}))
