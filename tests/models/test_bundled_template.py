"""The chat template, rendered in a sandbox and through transformers, and the tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from engine.models.bundled import model_dir
from engine.models.bundled.template import render

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ASK = {"role": "user", "content": "Weather in Rome?"}


def _call(arguments: Any) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": arguments}
    return {"role": "assistant", "content": None,
            "tool_calls": [{"id": "1", "type": "function", "function": function}]}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    loaded = AutoTokenizer.from_pretrained(str(model_dir()))
    assert isinstance(loaded, PreTrainedTokenizerFast)
    return loaded


CONVERSATIONS: list[tuple[list[dict[str, Any]], list[dict[str, Any]] | None]] = [
    ([ASK], None),
    ([{"role": "system", "content": "Be kind."}, ASK], [TOOL]),
    ([ASK, _call({"city": "Rome"}), {"role": "tool", "content": "sunny"},
      {"role": "tool", "content": "21"}], [TOOL]),
    ([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
     None),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "tools"), CONVERSATIONS)
@pytest.mark.parametrize("thinking", [False, True])
def test_rendering_equals_transformers(
    tokenizer: PreTrainedTokenizerFast,
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    thinking: bool,
) -> None:
    theirs = tokenizer.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=True,
        enable_thinking=thinking,
    )  # fmt: skip
    ours = render(messages, tools, add_generation_prompt=True, enable_thinking=thinking)
    assert ours == theirs


def test_plain_prompt() -> None:
    text = render([ASK], add_generation_prompt=True)
    assert text == "<|im_start|>user\nWeather in Rome?<|im_end|>\n<|im_start|>assistant\n"
    assert render([ASK], add_generation_prompt=True, enable_thinking=True) == text + "<think>\n"


def test_tools_follow_the_system_text() -> None:
    text = render([{"role": "system", "content": "Be kind."}, ASK], [TOOL])
    assert text.startswith("<|im_start|>system\nBe kind.\n\nYou may call these tools:\n<tools>\n")
    assert '{"name": "get_weather", "description": "Weather of a city"' in text


@pytest.mark.parametrize("arguments", ['{"city": "Rome"}', {"city": "Rome"}])
def test_call_arguments_as_text_or_object(arguments: Any) -> None:
    text = render([ASK, _call(arguments)], [TOOL])
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert f"<|im_start|>assistant\n{call}<|im_end|>\n" in text


def test_consecutive_results_share_a_turn() -> None:
    results = [{"role": "tool", "content": "sunny"}, {"role": "tool", "content": "21"}]
    text = render([ASK, _call({}), *results], [TOOL])
    assert text.endswith(
        "<|im_start|>user\n<tool_response>\nsunny\n</tool_response>"
        "\n<tool_response>\n21\n</tool_response><|im_end|>\n"
    )


def test_reasoning_is_dropped_from_history() -> None:
    answers = [
        {"role": "assistant", "content": "7.", "reasoning_content": "5 + 2"},
        {"role": "assistant", "content": "<think>\n5 + 2\n</think>\n\n7."},
    ]
    for answer in answers:
        assert render([answer]) == "<|im_start|>assistant\n7.<|im_end|>\n"


@pytest.mark.parametrize(
    "text",
    ["Hello, world!", " two  spaces ", "line\nline\n\n\tend\r\n", "Ωμέγα 東京 ñ", "🙂👩‍👩‍👧 ok",
     "\x00\x7f", "1234 12.5e-3", '{"a": [1, 2]}', "don't"],
)  # fmt: skip
def test_any_text_round_trips(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_digits_stand_alone_and_marks_are_single_tokens(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]
    for mark in ("<think>", "</think>", "<tool_call>", "</tool_call>", "<|im_start|>"):
        assert len(tokenizer.encode(mark, add_special_tokens=False)) == 1
    ids = tokenizer.encode("<tool_call>x</tool_call><|im_end|>", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<tool_call>x</tool_call>"
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
