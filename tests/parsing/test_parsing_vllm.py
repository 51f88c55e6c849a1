"""Agreement with vLLM's own parsers, where vLLM is installed.

vLLM's non-streaming extraction is the oracle. It drops text behind calls, which this package
keeps, and some of its parsers strip the text in front: contents are compared accordingly.
Where vLLM reads well-formed calls wrongly a test of its own shows the case.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsing_cases import (
    CASES,
    Call,
    Case,
    cuts,
    dumps,
    outputs,
    parse,
    pieces,
    plain_calls,
    relaxed,
    spicy,
)

from gateway.chat.parsing import Formats, ToolSchemas

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vLLM, the oracle, is not installed"
    ),
    # vLLM and what it imports warn of their own deprecations.
    pytest.mark.filterwarnings("ignore"),
]

SPECIAL = (
    "<unk>", "<tool_call>", "</tool_call>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]",
    "<|tool_call|>", "<think>", "</think>", "[THINK]", "[/THINK]", "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<|im_start|>",
    "<|im_end|>", "<|tool_call_start|>", "<|tool_call_end|>",
)  # fmt: skip


class Vocabulary:
    """As much of a tokenizer as vLLM's parsers ask for."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._ids = {token: i for i, token in enumerate(tokens)}

    def get_vocab(self) -> dict[str, int]:
        return dict(self._ids)


class Oracle:
    def __init__(self) -> None:
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
        from vllm.reasoning import ReasoningParserManager
        from vllm.tool_parsers import ToolParserManager

        self._request = ChatCompletionRequest
        self._tools = ToolParserManager
        self._reasoning = ReasoningParserManager

    def _prepare(self, case: Case, tools: ToolSchemas) -> tuple[Any, Any]:
        vocabulary = [t for t in SPECIAL if not (case.name == "mistral_list" and t == "[ARGS]")]
        request = self._request(
            model="m",
            messages=[{"role": "user", "content": "x"}],
            tools=[
                {"type": "function", "function": {"name": n, "parameters": dict(schema)}}
                for n, schema in tools.items()
            ]
            or None,
        )
        cls = self._tools.get_tool_parser(case.tool)
        return cls(Vocabulary(vocabulary), request.tools), request

    def calls(self, case: Case, text: str, tools: ToolSchemas) -> tuple[list[Call], str]:
        parser, request = self._prepare(case, tools)
        found = parser.extract_tool_calls(text, request)
        calls = [(c.function.name, json.loads(c.function.arguments)) for c in found.tool_calls]
        return calls, found.content or ""

    def streamed(self, case: Case, parts: Sequence[str], tools: ToolSchemas) -> list[Call]:
        parser, request = self._prepare(case, tools)
        deltas = []
        before = ""
        for part in parts:
            now = before + part
            deltas.append(
                parser.extract_tool_calls_streaming(before, now, part, [], [], [], request)
            )
            before = now
        if hasattr(parser, "finish_streaming"):
            deltas.append(parser.finish_streaming())
        names: dict[int, str] = {}
        arguments: dict[int, str] = {}
        for call in (c for delta in deltas if delta for c in delta.tool_calls or ()):
            if call.function and call.function.name:
                names[call.index] = call.function.name
            if call.function and call.function.arguments:
                arguments[call.index] = arguments.get(call.index, "") + call.function.arguments
        return [(names[i], json.loads(arguments.get(i) or "{}")) for i in sorted(names)]

    def reasoning(self, name: str, text: str) -> tuple[str, str]:
        _, request = self._prepare(CASES[0], {})
        parser = self._reasoning.get_reasoning_parser(name)(Vocabulary(SPECIAL))
        thought, content = parser.extract_reasoning(text, request)
        return thought or "", content or ""


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    before = logging.root.manager.disable
    try:
        made = Oracle()
        # vLLM logs a traceback for each output that it cannot parse.
        logging.disable(logging.CRITICAL)
        yield made
    finally:
        logging.disable(before)


def alike(calls: list[Call]) -> object:
    """Calls with whole floats as integers: where vLLM knows a schema it prints them so."""
    return json.loads(dumps(calls), parse_float=_number)


def _number(text: str) -> object:
    value = float(text)
    return int(value) if value.is_integer() else value


def _strings_hold(calls: list[Call], parts: str) -> bool:
    return any(part in dumps(args) for _, args in calls for part in parts.split())


# Well-formed outputs that vLLM may misread, for it looks for markers inside JSON strings too;
# ``WRONG`` below has an example of each kind.
_KNOWN: dict[str, Callable[[str, list[Call]], bool]] = {
    "hermes": lambda _, calls: _strings_hold(calls, "<tool_call> </tool_call>"),
    "qwen_xml": lambda _, calls: _strings_hold(
        calls, "<tool_call> </tool_call> <function= </function> <parameter= <think> </think>"
    ),
    "mistral_list": lambda _, calls: _strings_hold(calls, "[TOOL_CALLS]"),
    "mistral_named": lambda _, calls: _strings_hold(calls, "[TOOL_CALLS] [ARGS] [THINK] [/THINK]"),
    "mistral_args": lambda _, calls: _strings_hold(calls, "[TOOL_CALLS] [ARGS] [THINK] [/THINK]"),
    "phi4": lambda _, calls: _strings_hold(calls, "]"),
    "granite": lambda _, calls: _strings_hold(calls, "<|tool_call|> <tool_call>"),
    "granite_text": lambda _, calls: _strings_hold(calls, "<|tool_call|> <tool_call>"),
    "deepseek_v3": lambda _, calls: _strings_hold(calls, "<｜tool ```"),
    "deepseek_v31": lambda _, calls: _strings_hold(calls, "<｜tool"),
    "lfm2": lambda _, calls: _strings_hold(calls, "<|tool_call"),
    "pythonic": lambda _, calls: _underscored(calls),
    "llama4": lambda _, calls: _underscored(calls),
}
_ORACLES = [case for case in CASES if case.name not in ("phi4_tagged", "harmony")]


def _underscored(calls: list[Call]) -> bool:
    return any(name.startswith("_") for call, args in calls for name in (call, *args))


@pytest.mark.parametrize("case", _ORACLES, ids=lambda case: case.name)
@given(data=st.data())
@relaxed(100)
def test_same_calls(oracle: Oracle, case: Case, data: st.DataObject) -> None:
    text, content, calls, schemas = data.draw(outputs(case))
    if case.tool in ("pythonic", "llama4_pythonic"):
        text, content = case.write(calls), ""  # vLLM allows no text around these
    if case.name in _KNOWN and _KNOWN[case.name](text, calls):
        return
    tools = schemas if len(schemas) == len(calls) else {}
    theirs, their_content = oracle.calls(case, text, tools)
    ours = parse(pieces(text, data.draw(cuts)), Formats(case.tool), tools=tools)
    assert alike(plain_calls(ours)) == alike(theirs)
    if case.tool != "llama3_json" and case.tool != "phi4_mini_json":
        # vLLM's lfm2 parser joins text before and behind with a newline.
        assert "".join(content.split()).startswith("".join(their_content.split()))


@pytest.mark.parametrize(
    "case",
    # Not granite: vLLM streams some of its arguments as JSON that does not parse.
    [c for c in CASES if c.name in ("hermes", "qwen_xml", "mistral_named")],
    ids=lambda case: case.name,
)
@given(data=st.data())
@relaxed(40)
def test_same_calls_streamed(oracle: Oracle, case: Case, data: st.DataObject) -> None:
    text, _, calls, schemas = data.draw(outputs(case))
    if _KNOWN[case.name](text, calls) or len(schemas) != len(calls):
        return
    text = case.write(calls)
    parts = [text[i : i + 4] for i in range(0, len(text), 4)]
    ours = parse(parts, Formats(case.tool), tools=schemas)
    assert alike(plain_calls(ours)) == alike(oracle.streamed(case, parts, schemas))


@given(thought=spicy, content=spicy)
@relaxed(100)
@pytest.mark.parametrize("name", ["deepseek_r1", "qwen3", "mistral", "granite"])
def test_same_reasoning(oracle: Oracle, name: str, thought: str, content: str) -> None:
    opens, closes = {
        "mistral": ("[THINK]", "[/THINK]"),
        "granite": ("Here is my thought process:", "Here is my response:"),
    }.get(name, ("<think>", "</think>"))
    if any(marker in thought + content for marker in (*SPECIAL, "Here")):
        return
    text = opens + thought + closes + content
    ours = parse([text], Formats(None, name))
    theirs = oracle.reasoning(name, text)
    if name == "mistral":  # vLLM strips the end of the thinking there
        assert (ours.reasoning.rstrip(), ours.content) == (theirs[0].rstrip(), theirs[1])
    else:
        assert (ours.reasoning, ours.content) == theirs
    if name in ("deepseek_r1", "qwen3"):
        opened = parse([thought + closes + content], Formats(None, name), prompt="<think>\n")
        assert (opened.reasoning, opened.content) == theirs
        assert oracle.reasoning(name, thought + closes + content) == theirs


WRONG: list[tuple[str, str, list[Call], str]] = [
    ("hermes", '<tool_call>\n{"name": "f", "arguments": {"a": "</tool_call>"}}\n</tool_call>',
     [("f", {"a": "</tool_call>"})], "a closing tag inside a JSON string ends the call"),
    ("phi4", 'functools[{"name": "f", "arguments": {"a": [1, 2]}}]',
     [("f", {"a": [1, 2]})], "the first ] ends the list, even of an argument"),
    ("phi4_tagged", '<|tool_call|>[{"name": "f", "arguments": {}}]<|/tool_call|>',
     [("f", {})], "the form that the model card gives is not known"),
    ("deepseek_v3",
     "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
     '{"a":\n 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
     [("f", {"a": 1})], "arguments over several lines are dropped"),
    ("pythonic", "[_f(a=1)]", [("_f", {"a": 1})], "names may not begin with an underscore"),
    ("pythonic", "[f(a=1)] Done.", [("f", {"a": 1})], "text behind the list undoes the calls"),
    ("llama", '{"name": "f", "parameters": {}} Is {this} fine?',
     [("f", {})], "a later brace undoes the calls"),
    ("mistral_args", '[TOOL_CALLS]f[ARGS]{"a": "[TOOL_CALLS]"}',
     [("f", {"a": "[TOOL_CALLS]"})], "a marker inside a JSON string begins a call"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "expected"), [w[:3] for w in WRONG], ids=[w[3] for w in WRONG]
)
def test_where_vllm_is_wrong(oracle: Oracle, name: str, text: str, expected: list[Call]) -> None:
    case = next(case for case in CASES if case.name == name)
    assert plain_calls(parse([text], Formats(case.tool))) == expected
    try:
        theirs = oracle.calls(case, text, {})[0]
    except ValueError:
        return
    assert theirs != expected, "vLLM reads this now: drop the case"


def test_text_behind_calls_is_kept_here_and_lost_there(oracle: Oracle) -> None:
    text = 'Hi <tool_call>{"name": "f", "arguments": {}}</tool_call> bye'
    assert oracle.calls(CASES[0], text, {}) == ([("f", {})], "Hi ")
    assert parse([text], Formats("hermes")).content == "Hi  bye"
