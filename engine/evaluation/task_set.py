"""Task sets of the user's: a JSONL of questions, each with what a right answer must satisfy.

One object per line: ``messages`` (as in a chat request) or ``prompt`` (short for one user
message), and at least one of ``answer`` (the whole answer), ``contains`` (a phrase or a list of
them, ignoring case), ``regex`` (found anywhere) and ``json_schema``. With several, all must
hold. ``skill`` groups lines in the table, ``tools`` are offered to the model.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

from engine.base import EngineStartError
from engine.models.evaluate import Check, EvalItem

EXPECTATIONS = ("answer", "contains", "regex", "json_schema")
ROLES = ("system", "developer", "user", "assistant", "tool")
DEFAULT_SKILL = "tasks"


def read_tasks(file: Path) -> list[EvalItem]:
    """The tasks of ``file``; raises EngineStartError naming the line that is wrong and why."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise EngineStartError(f"there is no {file}: give a JSONL of tasks") from None
    except (OSError, UnicodeDecodeError) as error:
        raise EngineStartError(f"{file} cannot be read ({error}): give a UTF-8 JSONL") from error
    items = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            items.append(_task(json.loads(line)))
        except ValueError as error:
            what = f"not JSON ({error})" if isinstance(error, json.JSONDecodeError) else str(error)
            raise EngineStartError(f"{file}, line {number}: {what}") from error
    if not items:
        raise EngineStartError(f"{file} holds no tasks: write one JSON object per line")
    return items


def _task(value: Any) -> EvalItem:
    if not isinstance(value, dict):
        raise ValueError("a task is a JSON object")
    skill = value.get("skill", DEFAULT_SKILL)
    if not isinstance(skill, str) or not skill:
        raise ValueError("'skill' must be a name")
    tools = value.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(map(_is_object, tools))):
        raise ValueError("'tools' must be a list of objects, as in a chat request")
    checks = tuple(_check(name, value[name]) for name in EXPECTATIONS if name in value)
    if not checks:
        raise ValueError(
            f"nothing is expected of the answer: give one of {', '.join(EXPECTATIONS)}"
        )
    return EvalItem(skill, _messages(value), tools or None, checks)


def _messages(value: dict[str, Any]) -> list[dict[str, Any]]:
    if ("messages" in value) == ("prompt" in value):
        raise ValueError("give either 'messages' or 'prompt'")
    if "prompt" in value:
        if not isinstance(value["prompt"], str) or not value["prompt"]:
            raise ValueError("'prompt' must be a text")
        return [{"role": "user", "content": value["prompt"]}]
    messages = value["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError("'messages' must be a list with at least one message")
    for message in messages:
        if not _is_object(message) or message.get("role") not in ROLES:
            raise ValueError(f"every message needs a 'role': one of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str) and "tool_calls" not in message:
            raise ValueError("every message needs a 'content' that is a text")
    return messages


def _check(name: str, expected: Any) -> Check:
    if name == "contains":
        phrases = [expected] if isinstance(expected, str) else expected
        if not isinstance(phrases, list) or not phrases or not all(_is_text(p) for p in phrases):
            raise ValueError("'contains' must be a text or a list of texts")
        return Check(name, phrases)
    if name == "json_schema":
        return Check(name, _schema(expected))
    if not _is_text(expected):
        raise ValueError(f"'{name}' must be a text")
    if name == "answer":
        return Check("exact", expected.strip())
    try:
        re.compile(expected)
    except re.error as error:
        raise ValueError(f"'regex' is not a regular expression ({error})") from error
    return Check(name, expected)


def _schema(schema: Any) -> Any:
    if not isinstance(schema, dict | bool):
        raise ValueError("'json_schema' must be a JSON Schema")
    if importlib.util.find_spec("jsonschema") is None:
        raise EngineStartError(
            "tasks with 'json_schema' need a package that is not installed: pip install jsonschema"
        )
    library = importlib.import_module("jsonschema")
    try:
        library.validators.validator_for(schema).check_schema(schema)
    except library.exceptions.SchemaError as error:
        raise ValueError(f"'json_schema' is not a JSON Schema ({error.message})") from error
    return schema


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)
