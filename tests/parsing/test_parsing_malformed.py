"""Output that keeps to no format: nothing raises, nothing is lost, cuts make no difference."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsing_cases import (
    CASE_IDS,
    CASES,
    MARKERS,
    Case,
    cuts,
    outputs,
    parse,
    pieces,
    relaxed,
    spicy,
)

from gateway.chat.parsing import REASONING_FORMATS, TOOL_FORMATS, Formats
from gateway.chat.parsing.base import HELD_LIMIT

TOOLS = sorted(TOOL_FORMATS)
_SNIPPETS = (
    '{"name": "f", "arguments": {"a": 1}}', '{"name": "f"', '"arguments": ', '{"name": 1}', "[",
    '{"name": "", "arguments": {}}', '{"name": "f", "name": 2}', '{"x": "y"}', "]", "}", "{",
    '{"arguments": "', ", ", "; ", '{"name": "f", "parameters": [', "f", "(", ")", "a=", "'",
    '"', "\\", "f(a=1)", "f(1)", "[f(a=", "[f()", '"""', "f{", "f[ARGS]", "1e999", "to=functions.f",
    "analysis", " ", "\n", "f>", ">", "a>\n", '{"name": "\\ud800", "arguments": {}}', "-", "0x",
)  # fmt: skip
soup = st.lists(st.sampled_from((*MARKERS, *_SNIPPETS)) | spicy, max_size=14).map("".join)


@pytest.mark.parametrize("tool", TOOLS)
@given(text=soup, places=cuts)
@relaxed(60)
def test_cuts_make_no_difference(tool: str, text: str, places: list[int]) -> None:
    formats = Formats(tool)
    whole = parse([text], formats)
    assert parse(pieces(text, places), formats) == whole
    assert parse(text, formats) == whole
    if not whole.tool_calls and tool != "openai":
        assert whole.content == text
    for call in whole.tool_calls:
        assert call.name
        (call.name + call.arguments).encode()


@st.composite
def damaged(draw: st.DrawFn, case: Case) -> str:
    """Well-formed calls with a part cut out and another put in."""
    text = case.write([("f", {"a": "x<y", "b": [1, {"c": None}], "d": -2.5}), ("g", {})])
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 8)))
    return text[:start] + draw(st.sampled_from((*MARKERS, *_SNIPPETS)) | soup) + text[end:]


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
@given(st.data())
@relaxed(60)
def test_cuts_make_no_difference_to_damaged_calls(case: Case, data: st.DataObject) -> None:
    text = data.draw(damaged(case))
    formats = Formats(case.tool)
    whole = parse([text], formats)
    assert parse(text, formats) == whole
    assert parse(pieces(text, data.draw(cuts)), formats) == whole
    if not whole.tool_calls and case.tool != "openai":
        assert whole.content == text


def test_values_that_are_missing() -> None:
    for text in ('{"name": }', '{"name": , "arguments": {}}', '{"arguments":]', '{"name":"f",}'):
        parsed = parse([f"<tool_call>{text}"], Formats("hermes"))
        assert (parsed.content, parsed.tool_calls) == (f"<tool_call>{text}", [])


@pytest.mark.parametrize("reasoning", [*sorted(REASONING_FORMATS), "openai_gptoss"])
@given(text=soup, places=cuts, tool=st.sampled_from([None, *TOOLS]), opened=st.booleans())
@relaxed(60)
def test_cuts_make_no_difference_behind_reasoning(
    reasoning: str, text: str, places: list[int], tool: str | None, opened: bool
) -> None:
    formats = Formats(tool, reasoning)
    prompt = "<think>\n" if opened else ""
    whole = parse([text], formats, prompt=prompt)
    assert parse(pieces(text, places), formats, prompt=prompt) == whole
    assert parse(text, formats, prompt=prompt) == whole


@pytest.mark.parametrize("case", CASES, ids=CASE_IDS)
@given(st.data())
@relaxed(40)
def test_output_may_stop_anywhere(case: Case, data: st.DataObject) -> None:
    """A cut output is a prefix of the whole one, call by call."""
    text, _, calls, schemas = data.draw(outputs(case))
    short = text[: data.draw(st.integers(0, len(text)))]
    formats = Formats(case.tool)
    parsed = parse([short], formats, tools=schemas)
    whole = parse([text], formats, tools=schemas)
    assert len(parsed.tool_calls) <= len(calls)
    for got, full in zip(parsed.tool_calls, whole.tool_calls, strict=False):
        assert got.name == full.name
        if formats.tool != "qwen3_xml":
            assert full.arguments.startswith(got.arguments)


@pytest.mark.parametrize("tool", [tool for tool in TOOLS if tool != "openai"])
def test_marker_like_text_is_content(tool: str) -> None:
    for text in ("", " ", "\n\n", "<", "a <tool", "{", "[", "functools", "[TOOL_CALLS", "x <|"):
        parsed = parse(text, Formats(tool))
        assert (parsed.content, parsed.tool_calls) == (text, [])


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        ("hermes", "<tool_call>\nno json\n</tool_call> tail"),
        ("hermes", '<tool_call>{"name": "f", "argu'),
        ("llama3_json", '{"answer": {"name": "f", "parameters": {}}}'),
        ("llama3_json", '{"name": "Ann", "age": 3}'),
        ("llama3_json", '<|python_tag|>print("x")'),
        ("mistral", "[TOOL_CALLS] nothing here"),
        ("mistral", "[TOOL_CALLS][]"),
        ("pythonic", "[1, 2, 3]"),
        ("pythonic", "[link](http://x) and more"),
        ("pythonic", "[f(1)]"),
        ("pythonic", "[f(a=__import__('os').system('x'))]"),
        ("pythonic", "[f(a=1e999)]"),
        ("pythonic", "[f(a=1, a=2)]"),
        ("phi4_mini_json", "functools[1]"),
        ("granite", "<|tool_call|>none"),
        ("qwen3_xml", "<tool_call>\nno function"),
        ("deepseek_v3", "<｜tool▁calls▁begin｜>oops<｜tool▁calls▁end｜>"),
    ],
)
def test_what_is_no_call_is_content(tool: str, text: str) -> None:
    for parts in ([text], list(text)):
        parsed = parse(parts, Formats(tool))
        assert (parsed.content, parsed.tool_calls) == (text, [])


def test_a_bare_call_to_an_unknown_tool_is_content() -> None:
    text = '{"name": "Ann", "parameters": {"age": 3}}'
    tools = {"get_weather": {}}
    assert parse([text], Formats("llama3_json"), tools=tools).content == text
    tagged = parse(["<|python_tag|>" + text], Formats("llama3_json"), tools=tools)
    assert tagged.tool_calls[0].name == "Ann"


def test_text_behind_a_broken_call_is_kept() -> None:
    parsed = parse(
        ['<tool_call>{"name": "f", "arguments": {"a": 1}, oops}</tool_call> end'], Formats("hermes")
    )
    assert parsed.tool_calls[0].arguments == '{"a": 1}'
    assert parsed.content == ", oops}</tool_call> end"


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    "unit",
    ["<tool_call>", '<tool_call>{"', "{", "[", "[f(", "functools[", "[TOOL_CALLS]", " ", "\\", "<"],
)
def test_time_is_linear_on_repeats(tool: str, unit: str) -> None:
    def seconds(size: int) -> float:
        text = (unit * (size // len(unit) + 1))[:size]
        start = time.process_time()
        parse((text[i : i + 5] for i in range(0, size, 5)), Formats(tool, "qwen3"))
        return time.process_time() - start

    # Quadratic time would multiply by 64; a busy machine does not.
    small = min(seconds(4_000) for _ in range(3))
    large = min(seconds(32_000) for _ in range(2))
    assert large < 40 * small + 0.05


@pytest.mark.parametrize(
    ("tool", "head"),
    [
        ("hermes", '<tool_call>{"name": "'),
        ("hermes", '<tool_call>{"arguments": {"a": "'),
        ("llama3_json", '{"name": "'),
        ("pythonic", "[f(a='"),
        ("granite", '<|tool_call|>[{"name": "'),
    ],
)
@pytest.mark.parametrize("step", [4_096, 10 * HELD_LIMIT])
def test_what_is_held_back_is_bounded(tool: str, head: str, step: int) -> None:
    text = head + "x" * (2 * HELD_LIMIT)
    parsed = parse((text[i : i + step] for i in range(0, len(text), step)), Formats(tool))
    assert (parsed.content, parsed.tool_calls) == (text, [])


def test_deep_nesting_is_harmless() -> None:
    deep = "[" * 100_000
    hermes = parse([f'<tool_call>{{"name": "f", "arguments": {{"a": {deep}'], Formats("hermes"))
    assert hermes.tool_calls[0].arguments.endswith("[[")
    text = f"[f(a={deep}{']' * 100_000})]"
    assert parse([text], Formats("pythonic")).content == text
    string = '"' + "[" * 50_000 + '"'
    packed = parse([f'<tool_call>{{"name": "f", "arguments": {string}}}'], Formats("hermes"))
    assert packed.tool_calls[0].arguments == string
    xml = f"<tool_call><function=f><parameter=a>{deep}</parameter></function></tool_call>"
    tools = {"f": {"properties": {"a": {"type": "array"}}}}
    assert parse([xml], Formats("qwen3_xml"), tools=tools).tool_calls[0].arguments.endswith('["}')
