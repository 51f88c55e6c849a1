"""Reasoning split from content and calls."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsing_cases import cuts, parse, pieces, plain_calls, relaxed, spicy

from gateway.chat.parsing import Formats

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("reasoning", "prompt", "text", "thought", "content"),
    [
        ("qwen3", "", "<think>\nhm\n</think>\n\nHi", "\nhm\n", "\n\nHi"),
        ("qwen3", "", " \n<think>hm</think>Hi", "hm", "Hi"),
        ("qwen3", "", "Hi", "", "Hi"),
        ("qwen3", "", "<think></think>Hi", "", "Hi"),
        ("qwen3", "", "<think>cut off", "cut off", ""),
        ("qwen3", "", "I write <think>x</think>", "", "I write <think>x</think>"),
        ("qwen3", "", "<think>a</think>b</think>c", "a", "b</think>c"),
        ("qwen3", "<think>\n\n</think>\n\n", "Hi", "", "Hi"),
        ("qwen3", "assistant\n<think>\n", "hm</think>Hi", "hm", "Hi"),
        ("deepseek_r1", "<think>\n", "hm</think>Hi", "hm", "Hi"),
        ("deepseek_r1", "<think>\n", "<think>\nhm</think>Hi", "\nhm", "Hi"),
        ("deepseek_r1", "<think>", "never closed", "never closed", ""),
        ("deepseek_r1", "<think>", "the tag <think> is", "the tag <think> is", ""),
        ("mistral", "", "[THINK]hm[/THINK]Hi", "hm", "Hi"),
        ("mistral", "", "So [THINK]hm[/THINK]Hi[THINK]m[/THINK]!", "hmm", "So Hi!"),
        ("granite", "", "Here is my thought process: hm Here is my response: Hi", " hm ", " Hi"),
        ("granite", "", "Here's my thought process: hm Here's my response: Hi", " hm ", " Hi"),
        ("granite", "", "Here is my answer: Hi", "", "Here is my answer: Hi"),
        ("openai_gptoss", "", "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
         "<|channel|>final<|message|>Hi<|return|>", "hm", "Hi"),
    ],
)  # fmt: skip
def test_split(reasoning: str, prompt: str, text: str, thought: str, content: str) -> None:
    for parts in ([text], list(text)):
        parsed = parse(parts, Formats(None, reasoning), prompt=prompt)
        assert (parsed.reasoning, parsed.content) == (thought, content)


@given(thought=spicy, content=spicy, opened=st.booleans(), places=cuts)
@relaxed(100)
def test_any_thought_is_read_back(
    thought: str, content: str, opened: bool, places: list[int]
) -> None:
    text = ("" if opened else "<think>") + f"{thought}</think>{content}"
    prompt = "<think>\n" if opened else "<|im_start|>assistant\n"
    parsed = parse(pieces(text, places), Formats(None, "qwen3"), prompt=prompt)
    assert (parsed.reasoning, parsed.content) == (thought, content)


@given(places=cuts)
@relaxed(100)
def test_calls_behind_reasoning(places: list[int]) -> None:
    text = f"<think>I may use <tool_call> tags.</think>\n\n{CALL}\n{CALL}"
    parsed = parse(pieces(text, places), Formats("hermes", "qwen3"))
    assert parsed.reasoning == "I may use <tool_call> tags."
    assert parsed.content == ""
    assert plain_calls(parsed) == [("f", {"a": 1})] * 2


@given(places=cuts)
@relaxed(100)
def test_a_call_ends_reasoning_that_was_not_closed(places: list[int]) -> None:
    parsed = parse(pieces(f"hm\n{CALL}", places), Formats("hermes", "qwen3"), prompt="<think>\n")
    assert (parsed.reasoning, parsed.content) == ("hm\n", "")
    assert plain_calls(parsed) == [("f", {"a": 1})]
    mistral = parse(pieces('[THINK]hm[TOOL_CALLS]f{"a": 1}', places), Formats("mistral", "mistral"))
    assert (mistral.reasoning, plain_calls(mistral)) == ("hm", [("f", {"a": 1})])


def test_a_call_inside_reasoning_is_reasoning_when_there_are_no_tools() -> None:
    from gateway.chat.parsing import collect, make_parser

    parser = make_parser(Formats("hermes", "qwen3"), tools=None, prompt="<think>")
    parsed = collect(parser, f"hm {CALL}</think>ok")
    assert (parsed.reasoning, parsed.content) == (f"hm {CALL}", "ok")
