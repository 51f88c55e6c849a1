"""Which formats a model writes, told from its chat template.

A template has to print the calls and the thinking of earlier turns, so the markers that the
model was trained on stand in its source. The model's name decides only where they do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.chat.parsing.registry import HARMONY_REASONING, Formats

# In order: the first whose markers all occur. Rarer markers come before those that several
# families share.
_TOOL_MARKERS: Final[tuple[tuple[tuple[str, ...], str | None], ...]] = (
    (("<|channel|>", "<|message|>"), "openai"),
    (("<｜tool▁call▁begin｜>", "```json"), "deepseek_v3"),
    (("<｜tool▁call▁begin｜>",), "deepseek_v31"),
    (("[TOOL_CALLS]",), "mistral"),
    (("<function=", "<parameter="), "qwen3_xml"),
    (("<|tool_call_start|>",), "lfm2"),
    (("<|tool_list_start|>",), "lfm2"),
    (("<arg_key>",), None),  # GLM: <tool_call>, but neither JSON nor XML behind it
    (("functools",), "phi4_mini_json"),
    (("<|tool|>",), "phi4_mini_json"),
    (("<|tool_call|>",), "granite"),
    (("<tool_call>", "</tool_call>"), "hermes"),
    (("<tool_call>",), "granite"),
    (("<|python_start|>",), "llama4_pythonic"),
    (("[func_name1(",), "pythonic"),
    (("<|python_tag|>",), "llama3_json"),
    (("<|start_header_id|>", '"parameters"'), "llama3_json"),
)
_REASONING_MARKERS: Final = (
    ("<|channel|>analysis", HARMONY_REASONING),
    ("[THINK]", "mistral"),
    ("Here is my thought process", "granite"),
    ("<｜Assistant｜><think>", "deepseek_r1"),
    ("</think>", "qwen3"),
    ("<think>", "qwen3"),
)
# For templates that leave the calls to the application, and for models without one.
_TOOL_BY_NAME: Final = (
    ("qwen3-coder", "qwen3_xml"),
    ("qwen3coder", "qwen3_xml"),
    ("toolace", "pythonic"),
    ("phi-4-mini", "phi4_mini_json"),
    ("phi4mini", "phi4_mini_json"),
    ("hermes", "hermes"),
    ("qwen2.5", "hermes"),
    ("qwen3", "hermes"),
    ("mistral", "mistral"),
    ("mixtral", "mistral"),
    ("granite-4", "granite4"),
    ("granite", "granite"),
    ("llama-3", "llama3_json"),
    ("gpt-oss", "openai"),
    ("gptoss", "openai"),
    ("lfm2", "lfm2"),
)
_REASONING_BY_NAME: Final = (
    ("gpt-oss", HARMONY_REASONING),
    ("gptoss", HARMONY_REASONING),
    ("deepseek-r1", "deepseek_r1"),
    ("magistral", "mistral"),
    ("qwq", "deepseek_r1"),
)


def detect(
    chat_template: str | None,
    *,
    special_tokens: Iterable[str] = (),
    model: str = "",
    architecture: str = "",
    tool: str = "",
    reasoning: str = "",
) -> Formats:
    """Choose the formats of a model.

    Args:
        chat_template: its Jinja source.
        special_tokens: the tokenizer's; markers that the template does not print may be
            among them.
        model, architecture: the model's id and class name, the last resort.
        tool, reasoning: settings that override what is found; ``none`` turns one off.

    Raises ValueError for a setting that names no format.
    """
    source = chat_template or ""
    tokens = "\n".join(special_tokens)
    name = f"{model}\n{architecture}".lower()
    found = Formats(
        _tool_format(source, tokens, name),
        _reasoning_format(source, tokens, name),
    )
    return found.overridden(tool, reasoning)


def _tool_format(source: str, tokens: str, name: str) -> str | None:
    for markers, form in _TOOL_MARKERS:
        if all(marker in source for marker in markers):
            return form
    if source and "tool" not in source:
        return None  # a template that knows no tools cannot show them to the model
    if "[TOOL_CALLS]" in tokens:
        return "mistral"
    return next((form for part, form in _TOOL_BY_NAME if part in name), None)


def _reasoning_format(source: str, tokens: str, name: str) -> str | None:
    for marker, form in _REASONING_MARKERS:
        if marker in source:
            return form
    if "[THINK]" in tokens:
        return "mistral"
    return next((form for part, form in _REASONING_BY_NAME if part in name), None)
