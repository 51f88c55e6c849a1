"""Forced tool calls parse into valid calls, and fields are refused with their names."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest
from structured_walks import Walker, make_tokenizer

from engine.base import StructuredOutput
from engine.structured.schema import LENIENT as ENGINE_LENIENT
from engine.structured.schema import OPTIONS
from gateway.chat.constraints import (
    LENIENT,
    Thinking,
    ToolChoice,
    after_thinking,
    read_response_format,
    read_structured_outputs,
    read_tool_choice,
    tool_constraint,
)
from gateway.chat.parsing import Formats, Parsed, make_parser
from gateway.errors import InvalidRequest

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "unit": {"enum": ["C", "F"]},
        "hourly": {"type": "boolean"},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
NESTED = {
    "type": "object",
    "properties": {
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}, "maxItems": 2},
        "note": {"type": ["string", "null"], "maxLength": 5},
    },
    "required": ["items", "note"],
    "additionalProperties": False,
    "$defs": {"item": {"type": "object", "properties": {"n": {"type": "integer"}}}},
}
THINKING = Thinking("<think>", "</think>")
REQUIRED = ToolChoice("required")


def tool(name: str, parameters: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, **more} | ({"parameters": parameters} if parameters else {})
    return {"type": "function", "function": function}


FLAT = [tool("get", WEATHER), tool("get_weather", WEATHER), tool("now")]
TOOLS = [*FLAT, tool("order", NESTED, strict=True)]
SCHEMAS = {t["function"]["name"]: t["function"].get("parameters", {}) for t in TOOLS}
MARKED = {
    "hermes": ["<tool_call>", "</tool_call>"],
    "llama3_json": [],
    "mistral": ["[TOOL_CALLS]"],
    "mistral 11": ["[TOOL_CALLS]", "[ARGS]"],
    "granite": ["<|tool_call|>"],
    "phi4_mini_json": [],
    "pythonic": [],
    "llama4_pythonic": ["<|python_start|>", "<|python_end|>"],
}
PYTHON = ("pythonic", "llama4_pythonic")


@pytest.fixture(scope="module")
def walkers() -> dict[tuple[str, ...], Walker]:
    return {}


def walker_for(walkers: dict[tuple[str, ...], Walker], marks: list[str]) -> Walker:
    key = tuple(marks)
    if key not in walkers:
        walkers[key] = Walker(make_tokenizer(["<think>", "</think>", *marks]))
    return walkers[key]


def parse(form: str, text: str, *, thinking: bool = False) -> Parsed:
    formats = Formats(form.split()[0], "qwen3" if thinking else None)
    parser = make_parser(formats, tools=SCHEMAS, prompt="")
    parsed = Parsed()
    parsed.add(parser.feed(text))
    parsed.add(parser.finish())
    return parsed


def check_calls(parsed: Parsed) -> list[str]:
    for call in parsed.tool_calls:
        arguments = json.loads(call.arguments)
        jsonschema.validate(arguments, SCHEMAS[call.name])
        if call.name == "now":
            assert arguments == {}
    return [call.name for call in parsed.tool_calls]


@pytest.mark.parametrize("tokens", [True, False], ids=["as tokens", "as text"])
@pytest.mark.parametrize("form", MARKED)
def test_required_calls(walkers: dict[tuple[str, ...], Walker], form: str, tokens: bool) -> None:
    if form == "mistral 11" and not tokens:
        pytest.skip("the tokens make the difference")
    walker = walker_for(walkers, MARKED[form] if tokens else [])
    tools = FLAT if form in PYTHON else TOOLS
    structured = tool_constraint(
        form.split()[0], tools, REQUIRED, parallel=True, token_id=walker.tokenizer.token_to_id
    )
    assert structured is not None
    several = 0
    for seed in range(12):
        text = walker.write(structured, seed, most=1500)
        parsed = parse(form, text)
        assert parsed.content == "", text
        assert 1 <= len(check_calls(parsed)) <= 64
        several += len(parsed.tool_calls) > 1
    assert several


@pytest.mark.parametrize("form", MARKED)
def test_named_and_single_calls(walkers: dict[tuple[str, ...], Walker], form: str) -> None:
    walker = walker_for(walkers, MARKED[form])
    for choice, parallel in ((ToolChoice("named", "get"), True), (REQUIRED, False)):
        structured = tool_constraint(
            form.split()[0], FLAT, choice, parallel=parallel, token_id=walker.tokenizer.token_to_id
        )
        assert structured is not None
        for seed in range(6):
            parsed = parse(form, walker.write(structured, seed, most=600))
            assert parsed.content == ""
            (name,) = check_calls(parsed)
            assert name == (choice.name or name)


def test_hermes_calls_are_what_the_model_was_trained_on(walker: Walker) -> None:
    structured = tool_constraint(
        "hermes", TOOLS, REQUIRED, parallel=True, token_id=walker.tokenizer.token_to_id
    )
    assert structured is not None
    call = '<tool_call>\n{"name": "get", "arguments": {"city": "Oslo", "days": 3}}\n</tool_call>'
    assert walker.tokenizer.token_to_id("<tool_call>") in walker.ids(call)
    assert walker.accepts(structured, call)
    assert walker.accepts(structured, f"{call}\n{call}")
    assert not walker.accepts(structured, f"{call}\n")
    assert not walker.accepts(structured, call.replace('"get"', '"other"'))
    assert not walker.accepts(structured, call.replace("3", "15"))
    assert not walker.accepts(structured, "Hello. " + call)


@pytest.mark.parametrize("opened", [True, False])
def test_calls_behind_reasoning(walker: Walker, opened: bool) -> None:
    thinking = Thinking("<think>", "</think>", opened)
    structured = tool_constraint(
        "hermes",
        FLAT,
        ToolChoice("named", "now"),
        parallel=True,
        token_id=walker.tokenizer.token_to_id,
        thinking=thinking,
    )
    assert structured is not None
    call = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    thought = "\nHm.\n</think>\n\n" + call
    assert walker.accepts(structured, thought if opened else "<think>" + thought)
    assert walker.accepts(structured, call) is not opened
    assert not walker.accepts(structured, "Hm. " + call)


@pytest.mark.parametrize("tokens", [True, False], ids=["as tokens", "as text"])
def test_strict_tools_under_auto(walkers: dict[tuple[str, ...], Walker], tokens: bool) -> None:
    walker = walker_for(walkers, MARKED["hermes"] if tokens else [])
    structured = tool_constraint(
        "hermes", TOOLS, ToolChoice("auto"), parallel=True, token_id=walker.tokenizer.token_to_id
    )
    assert structured is not None
    call = '<tool_call>\n{"name": "order", "arguments": {"items": [], "note": null}}\n</tool_call>'
    for text in ("", "Hello, <b>you</b>.", call, f"Well: {call}", f"{call}\n{call}", f"{call} ok"):
        assert walker.accepts(structured, text), text
    for wrong in ('"note": 3', '"other": 3'):
        assert not walker.accepts(structured, call.replace('"note": null', wrong))


def test_auto_enforces_nothing_where_it_cannot(walker: Walker) -> None:
    ids = walker.tokenizer.token_to_id
    auto = ToolChoice("auto")
    assert tool_constraint("hermes", FLAT, auto, parallel=True, token_id=ids) is None
    assert tool_constraint("llama3_json", TOOLS, auto, parallel=True, token_id=ids) is None
    assert tool_constraint(None, TOOLS, auto, parallel=True, token_id=ids) is None
    assert tool_constraint("hermes", [], REQUIRED, parallel=True, token_id=ids) is None
    none = ToolChoice("none")
    assert tool_constraint("hermes", TOOLS, none, parallel=True, token_id=ids) is None


@pytest.mark.parametrize(
    ("form", "tools", "param"),
    [
        ("qwen3_xml", TOOLS, "tool_choice"),
        (None, TOOLS, "tool_choice"),
        ("pythonic", TOOLS, "tool_choice"),
        ("hermes", [tool("not a name")], "tools[0].function.name"),
        ("hermes", [tool('x"')], "tools[0].function.name"),
        ("hermes", [tool("a"), tool("a")], "tools[1].function.name"),
        ("hermes", [tool("a", {"type": "string"})], "tools[0].function.parameters"),
        ("hermes", [tool("a", [1])], "tools[0].function.parameters"),
        ("hermes", [tool("a", strict=1)], "tools[0].function.strict"),
    ],
)
def test_tools_that_cannot_be_forced(form: str | None, tools: list[Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        tool_constraint(form, tools, REQUIRED, parallel=True, token_id=lambda text: None)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "answer",
    [
        StructuredOutput(json_schema='{"type": "integer", "minimum": 5, "maximum": 5}'),
        StructuredOutput(regex="^5$"),
        StructuredOutput(choice=("5", "6")),
    ],
)
def test_answers_behind_reasoning(walker: Walker, answer: StructuredOutput) -> None:
    ids = walker.tokenizer.token_to_id
    optional = after_thinking(answer, THINKING, ids)
    assert walker.accepts(optional, "<think>\nWell, 7.\n</think>\n\n5")
    assert walker.accepts(optional, "5")
    assert not walker.accepts(optional, "<think>\nWell.\n</think>\n\n7")
    opened = after_thinking(answer, Thinking("<think>", "</think>", opened=True), ids)
    assert walker.accepts(opened, "Well, 7.\n</think>\n\n5")
    assert not walker.accepts(opened, "5")


def test_a_grammar_of_the_client_behind_reasoning(walker: Walker) -> None:
    ids = walker.tokenizer.token_to_id
    grammar = StructuredOutput(grammar='start: "5"')
    assert after_thinking(grammar, THINKING, ids) is grammar
    with pytest.raises(InvalidRequest):
        after_thinking(grammar, Thinking("<think>", "</think>", opened=True), ids)


def test_response_formats() -> None:
    schema = {"type": "object", "x-guidance": {"lenient": True}}
    wrapper = {"name": "a_b-1", "schema": schema, "strict": True, "description": "d"}
    assert read_response_format(None) is None
    assert read_response_format({"type": "text"}) is None
    assert read_response_format({"type": "json_object"}) == StructuredOutput(json_object=True)
    strict = read_response_format({"type": "json_schema", "json_schema": wrapper})
    assert strict is not None
    assert json.loads(strict.json_schema or "") == {"type": "object"}
    loose = read_response_format({"type": "json_schema", "json_schema": wrapper | {"strict": None}})
    assert loose is not None
    assert json.loads(loose.json_schema or "") == {"type": "object", **LENIENT}
    assert {OPTIONS: ENGINE_LENIENT} == LENIENT


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (3, ""),
        ({}, ".type"),
        ({"type": "xml"}, ".type"),
        ({"type": 3}, ".type"),
        ({"type": "json_schema"}, ".json_schema"),
        ({"type": "json_schema", "json_schema": []}, ".json_schema"),
        ({"type": "json_schema", "json_schema": {"schema": {}}}, ".json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, ".json_schema.schema"),
        ({"type": "json_schema", "json_schema": {"name": "a b"}}, ".json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "a" * 65}}, ".json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "a\n"}}, ".json_schema.name"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": 3}}, ".json_schema.schema"),
        (
            {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": 1}},
            ".json_schema.strict",
        ),
    ],
)
def test_malformed_response_formats(value: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_response_format(value)
    assert caught.value.param == "response_format" + param


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ({"json": {"type": "null"}}, StructuredOutput(json_schema='{"type":"null"}')),
        ({"json": '{"type": "null"}'}, StructuredOutput(json_schema='{"type":"null"}')),
        ({"json_object": True, "regex": None}, StructuredOutput(json_object=True)),
        ({"regex": "a"}, StructuredOutput(regex="a")),
        ({"choice": ["a", "b"]}, StructuredOutput(choice=("a", "b"))),
        ({"grammar": "start: A"}, StructuredOutput(grammar="start: A")),
        (
            {"regex": "a", "disable_any_whitespace": False, "json_object": False},
            StructuredOutput(regex="a"),
        ),
    ],
)
def test_structured_outputs(value: Any, expected: StructuredOutput | None) -> None:
    assert read_structured_outputs(value) == expected


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ([], ""),
        ({}, ""),
        ({"regex": "a", "choice": ["b"]}, ""),
        ({"regex": 3}, ".regex"),
        ({"choice": "a"}, ".choice"),
        ({"choice": []}, ".choice"),
        ({"choice": ["a", 3]}, ".choice[1]"),
        ({"json": "{"}, ".json"),
        ({"json": []}, ".json"),
        ({"json_object": 1}, ".json_object"),
        ({"structural_tag": "x"}, ".structural_tag"),
        ({"regex": "a", "whitespace_pattern": " "}, ".whitespace_pattern"),
    ],
)
def test_malformed_structured_outputs(value: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_structured_outputs(value)
    assert caught.value.param == "structured_outputs" + param


def test_tool_choices() -> None:
    assert read_tool_choice(None, []) == ToolChoice("none")
    assert read_tool_choice(None, TOOLS) == ToolChoice("auto")
    assert read_tool_choice("none", []) == ToolChoice("none")
    assert read_tool_choice("required", TOOLS) == REQUIRED
    named = {"type": "function", "function": {"name": "now"}}
    assert read_tool_choice(named, TOOLS) == ToolChoice("named", "now")


@pytest.mark.parametrize(
    ("value", "param"),
    [
        (3, "tool_choice"),
        ("any", "tool_choice"),
        ({"type": "tool"}, "tool_choice.type"),
        ({"type": "function"}, "tool_choice.function"),
        ({"type": "function", "function": {}}, "tool_choice.function.name"),
        ({"type": "function", "function": {"name": "missing"}}, "tool_choice"),
    ],
)
def test_malformed_tool_choices(value: Any, param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_tool_choice(value, TOOLS)
    assert caught.value.param == param
    with pytest.raises(InvalidRequest):
        read_tool_choice("required", [])


def test_random_tool_schemas_do_not_break_out_of_the_grammar(walker: Walker) -> None:
    rng = random.Random(3)
    for _ in range(10):
        text = "".join(rng.choice('"\\\n%/#{}<>[]:|é😀start json') for _ in range(20))
        schema = {"type": "object", "description": text, "properties": {text: {"const": text}}}
        tools = [tool("f", schema | {"required": [text], "additionalProperties": False})]
        structured = tool_constraint(
            "hermes", tools, REQUIRED, parallel=False, token_id=walker.tokenizer.token_to_id
        )
        assert structured is not None
        parsed = parse("hermes", walker.write(structured, 1))
        assert json.loads(parsed.tool_calls[0].arguments) == {text: text}
