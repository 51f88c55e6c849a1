"""Calls written in a format are read back, whatever way the text is cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsing_cases import (
    CASE_IDS,
    CASES,
    Case,
    cuts,
    dumps,
    outputs,
    parse,
    pieces,
    plain_calls,
    relaxed,
)

from gateway.chat.parsing import (
    ContentDelta,
    Formats,
    ToolCallArguments,
    ToolCallStart,
    collect,
    make_parser,
)


def same(value: object, other: object) -> bool:
    """Equality that tells 1 from True and from 1.0, as JSON does."""
    return dumps(value) == dumps(other)


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
@given(st.data())
@relaxed(40)
def test_calls_are_read_back(case: Case, data: st.DataObject) -> None:
    text, content, calls, schemas = data.draw(outputs(case))
    # Two calls of one name would need one schema for both.
    tools = schemas if len(schemas) == len(calls) else {}
    parsed = parse(pieces(text, data.draw(cuts)), Formats(case.tool), tools=tools)
    assert parsed.content == content
    assert [call.name for call in parsed.tool_calls] == [name for name, _ in calls]
    if case.tool == "qwen3_xml":
        if tools:
            assert _close(plain_calls(parsed), calls)
    else:
        assert same(plain_calls(parsed), calls)


def _close(got: object, expected: object) -> bool:
    """As ``same``, but whole floats are integers: bare text and a schema make no difference."""
    return json.loads(dumps(got), parse_float=_number) == json.loads(
        dumps(expected), parse_float=_number
    )


def _number(text: str) -> object:
    value = float(text)
    return int(value) if value.is_integer() else value


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
@given(st.data())
@relaxed(40)
def test_one_character_at_a_time_is_the_same(case: Case, data: st.DataObject) -> None:
    text, _, _, schemas = data.draw(outputs(case))
    formats = Formats(case.tool)
    assert parse(text, formats, tools=schemas) == parse([text], formats, tools=schemas)


@pytest.mark.parametrize("case", [c for c in CASES if c.keys == "any"], ids=lambda c: c.name)
def test_arguments_are_passed_on_verbatim_and_at_once(case: Case) -> None:
    args = {"q": 'a } ] " \\ \n <tool_call> </tool_call> é', "n": [1, {"x": {}}], "e": {}}
    text = case.write([("search", args)])
    raw = dumps(args)
    start = text.index(raw)
    parser = make_parser(Formats(case.tool), tools={}, prompt="")
    seen = ""
    for end, char in enumerate(text, 1):
        for event in parser.feed(char):
            if isinstance(event, ToolCallArguments):
                seen += event.text
        assert seen == text[start : max(start, min(end, start + len(raw)))]
    assert parser.finish() == []
    assert json.loads(seen) == args


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
def test_the_name_comes_first_and_once(case: Case) -> None:
    text = case.write([("f", {"a": 1}), ("g", {}), ("f", {"b": "x"})])
    events = []
    parser = make_parser(Formats(case.tool), tools={}, prompt="")
    for char in text:
        events += parser.feed(char)
    events += parser.finish()
    starts = [e for e in events if isinstance(e, ToolCallStart)]
    assert [(s.index, s.name) for s in starts] == [(0, "f"), (1, "g"), (2, "f")]
    assert len({s.id for s in starts}) == 3
    current = -1
    for event in events:
        if isinstance(event, ToolCallStart):
            current = event.index
        else:
            assert isinstance(event, ToolCallArguments)
            assert event.index == current


@pytest.mark.parametrize("case", [c for c in CASES if c.before], ids=lambda c: c.name)
def test_plain_text_is_held_no_longer_than_a_marker(case: Case) -> None:
    text = "He asked: a < b, f[0] and (c)? func tools, `x`; Here is more. \n\n End.\n"
    parser = make_parser(Formats(case.tool), tools={}, prompt="")
    if case.tool == "openai":
        parser.feed("<|channel|>final<|message|>")
    sent = 0
    for end, char in enumerate(text, 1):
        for event in parser.feed(char):
            assert isinstance(event, ContentDelta)
            sent += len(event.text)
        assert end - sent <= len("<｜tool▁calls▁begin｜>")
    assert end - sent == 0


def test_ids_suit_the_model() -> None:
    hermes = collect(
        make_parser(Formats("hermes"), tools={}, prompt=""),
        '<tool_call>{"name": "f", "arguments": {}}</tool_call>',
    )
    assert hermes.tool_calls[0].id.startswith("call_")
    mistral = collect(make_parser(Formats("mistral"), tools={}, prompt=""), "[TOOL_CALLS]f{}")
    assert mistral.tool_calls[0].id.isalnum()
    assert len(mistral.tool_calls[0].id) == 9


def test_without_tools_calls_are_content() -> None:
    text = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'
    parsed = collect(make_parser(Formats("hermes"), tools=None, prompt=""), text)
    assert (parsed.content, parsed.tool_calls) == (text, [])


@pytest.mark.parametrize(
    ("tool", "text", "expected"),
    [
        ("hermes", '<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', '{"a": 1}'),
        ("hermes", '<tool_call>{"name": "f"}</tool_call>', "{}"),
        ("hermes", '<tool_call>{"name": "f", "arguments": null}</tool_call>', "{}"),
        ("hermes", '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}', '{"a": 1}'),
        ("hermes", '<tool_call>{"name": "f", "arguments": "text"}', '"text"'),
        ("hermes", '<tool_call>{"id": 7, "name": "f", "x": [{}], "arguments": [1]}', "[1]"),
        ("hermes", '<tool_call>{"name": "f", "arguments": {}}', "{}"),
        ("mistral", '[TOOL_CALLS]{"name": "f", "arguments": {"a": 1}}', '{"a": 1}'),
        ("mistral", '[TOOL_CALLS]f[CALL_ID]abc123def[ARGS]{"a": 1}', '{"a": 1}'),
        ("mistral", '[TOOL_CALLS] [TOOL_CALLS]f{"a": 1}', '{"a": 1}'),
        ("llama3_json", '{"type": "function", "name": "f", "arguments": {"a": 1}}', '{"a": 1}'),
        ("llama3_json", 'Sure: {"name": "f", "parameters": {"a": 1}}', '{"a": 1}'),
        ("qwen3_xml", "<function=f>\n<parameter=a>x</function>", '{"a": "x"}'),
        ("qwen3_xml", "<tool_call><function=f><parameter=a>x<parameter=b>y", '{"a": "x", "b": "y'),
        ("pythonic", " [f(a=(1, 'x'), b={'y'}, c=null, d=-0x1f)]",
         '{"a": [1, "x"], "b": ["y"], "c": null, "d": -31}'),
        ("pythonic", "[f(a='''it's\n\"x\"''', b=\"line\nbreak\", c=r'\\d' \"s\", d='')]",
         '{"a": "it\'s\\n\\"x\\"", "b": "line\\nbreak", "c": "\\\\ds", "d": ""}'),
        ("openai", "<|start|>assistant to=functions.f<|channel|>commentary<|message|>{}", "{}"),
    ],
)  # fmt: skip
def test_variants(tool: str, text: str, expected: str) -> None:
    for parts in ([text], list(text)):
        parsed = parse(parts, Formats(tool))
        assert [(call.name, call.arguments) for call in parsed.tool_calls] == [("f", expected)]
