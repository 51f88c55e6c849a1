"""Writing calls in each format, as the models' templates do, and generating them."""

from __future__ import annotations

import json
import keyword
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from gateway.chat.parsing import Formats, Parsed, ToolSchemas, make_parser

Call = tuple[str, dict[str, Any]]


def relaxed(examples: int) -> settings:
    """Hypothesis without its clock: a busy machine is no failure."""
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    return settings(deadline=None, max_examples=examples, suppress_health_check=slow)


def dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def hermes(calls: Sequence[Call]) -> str:
    return "\n".join(
        f"<tool_call>\n{dumps({'name': name, 'arguments': args})}\n</tool_call>"
        for name, args in calls
    )


def qwen_xml(calls: Sequence[Call]) -> str:
    def block(name: str, args: dict[str, Any]) -> str:
        parts = "".join(
            f"<parameter={key}>\n{value if isinstance(value, str) else dumps(value)}\n"
            "</parameter>\n"
            for key, value in args.items()
        )
        return f"<tool_call>\n<function={name}>\n{parts}</function>\n</tool_call>"

    return "\n".join(block(*call) for call in calls)


def llama(calls: Sequence[Call]) -> str:
    return "; ".join(dumps({"name": name, "parameters": args}) for name, args in calls)


def llama_tagged(calls: Sequence[Call]) -> str:
    return "<|python_tag|>" + llama(calls)


def json_list(calls: Sequence[Call]) -> str:
    return dumps([{"name": name, "arguments": args} for name, args in calls])


def mistral_list(calls: Sequence[Call]) -> str:
    return "[TOOL_CALLS] " + json_list(calls)


def mistral_named(calls: Sequence[Call]) -> str:
    return "".join(f"[TOOL_CALLS]{name}{dumps(args)}" for name, args in calls)


def mistral_args(calls: Sequence[Call]) -> str:
    return "".join(f"[TOOL_CALLS]{name}[ARGS]{dumps(args)}" for name, args in calls)


def phi4(calls: Sequence[Call]) -> str:
    return "functools" + json_list(calls)


def phi4_tagged(calls: Sequence[Call]) -> str:
    return f"<|tool_call|>{json_list(calls)}<|/tool_call|>"


def granite(calls: Sequence[Call]) -> str:
    return "<|tool_call|>" + json_list(calls)


def granite_text(calls: Sequence[Call]) -> str:
    return "<tool_call> " + json_list(calls)


def python_call(name: str, args: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in args.items())})"


def pythonic(calls: Sequence[Call]) -> str:
    return f"[{', '.join(python_call(*call) for call in calls)}]"


def llama4(calls: Sequence[Call]) -> str:
    return f"<|python_start|>{pythonic(calls)}<|python_end|>"


def lfm2(calls: Sequence[Call]) -> str:
    return f"<|tool_call_start|>{pythonic(calls)}<|tool_call_end|>"


def deepseek_v3(calls: Sequence[Call]) -> str:
    body = "\n".join(
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{dumps(args)}\n```"
        "<｜tool▁call▁end｜>"
        for name, args in calls
    )
    return f"<｜tool▁calls▁begin｜>{body}<｜tool▁calls▁end｜>"


def deepseek_v31(calls: Sequence[Call]) -> str:
    body = "".join(
        f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{dumps(args)}<｜tool▁call▁end｜>"
        for name, args in calls
    )
    return f"<｜tool▁calls▁begin｜>{body}<｜tool▁calls▁end｜>"


def harmony(calls: Sequence[Call]) -> str:
    return "".join(
        f"<|start|>assistant<|channel|>commentary to=functions.{name} <|constrain|>json"
        f"<|message|>{dumps(args)}<|call|>"
        for name, args in calls
    )


@dataclass(frozen=True)
class Case:
    """A format, a way of writing it, and characters that text beside calls may not hold."""

    name: str
    tool: str
    write: Callable[[Sequence[Call]], str]
    before: bool = True
    reserved: str = ""
    keys: str = "any"  # any | python | xml


CASES = (
    Case("hermes", "hermes", hermes),
    Case("qwen_xml", "qwen3_xml", qwen_xml, keys="xml"),
    Case("llama", "llama3_json", llama, reserved="{"),
    Case("llama_tagged", "llama3_json", llama_tagged, reserved="{"),
    Case("mistral_list", "mistral", mistral_list),
    Case("mistral_named", "mistral", mistral_named),
    Case("mistral_args", "mistral", mistral_args),
    Case("phi4", "phi4_mini_json", phi4),
    Case("phi4_tagged", "phi4_mini_json", phi4_tagged),
    Case("granite", "granite", granite),
    Case("granite_text", "granite", granite_text),
    Case("pythonic", "pythonic", pythonic, before=False, keys="python"),
    Case("llama4", "llama4_pythonic", llama4, reserved="[", keys="python"),
    Case("lfm2", "lfm2", lfm2, reserved="[", keys="python"),
    Case("deepseek_v3", "deepseek_v3", deepseek_v3),
    Case("deepseek_v31", "deepseek_v31", deepseek_v31),
    Case("harmony", "openai", harmony, reserved="<"),
)
CASE_IDS = [case.name for case in CASES]

MARKERS = (
    "<tool_call>", "</tool_call>", "<function=", "</function>", "<parameter=", "</parameter>",
    "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "functools[", "functools",
    "<|tool_call|>", "<|/tool_call|>", "<|python_start|>", "<|python_end|>", "<think>",
    "<|tool_call_start|>", "<|tool_call_end|>", "</think>", "[THINK]", "[/THINK]",
    "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>", "```json\n", "```", "<|start|>", "<|channel|>", "<|message|>",
    "<|end|>", "<|call|>", "Here is my thought process:", "Here is my response:",
)  # fmt: skip

# Characters that formats give a meaning to, so that generated text is full of near misses.
_SPICE = "<>|[]{}()\"'\\,;:=/ \n\tafunctoolsTé日🙂\u2028"
spicy = st.text(st.sampled_from(_SPICE) | st.characters(codec="utf-8"), max_size=24)
# Python's own words are no names in the pythonic formats.
names = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,15}", fullmatch=True).filter(
    lambda name: not keyword.iskeyword(name)
)
_scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | spicy
_scalars |= st.floats(allow_nan=False, allow_infinity=False)


def _arguments(keys: st.SearchStrategy[str]) -> st.SearchStrategy[dict[str, Any]]:
    values = st.recursive(
        _scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(spicy, inner, max_size=3),
        max_leaves=6,
    )
    return st.dictionaries(keys, values, max_size=4)


def _is_xml_value(value: Any) -> bool:
    """Whether a value survives being written as bare text between tags."""
    text = value if isinstance(value, str) else dumps(value)
    return not any(tag in text for tag in ("</parameter>", "<parameter=", "</function>"))


_ARGUMENTS = {
    "any": _arguments(spicy),
    "python": _arguments(names),
    "xml": _arguments(names).filter(lambda args: all(map(_is_xml_value, args.values()))),
}


@st.composite
def outputs(draw: st.DrawFn, case: Case) -> tuple[str, str, list[Call], ToolSchemas]:
    """An output of the format: text, what its content is, its calls and the tools' schemas."""

    def prose() -> str:
        text = draw(spicy.filter(lambda t: not any(c in t for c in case.reserved)))
        for marker in MARKERS:
            text = text.replace(marker, "")
        return text

    calls = draw(st.lists(st.tuples(names, _ARGUMENTS[case.keys]), min_size=1, max_size=3))
    before = prose() if case.before else ""
    after = prose()
    block = case.write(calls)
    if after.lstrip().startswith((";", ",", "```", ")", "]")):
        after = "" if not after.strip() else "." + after
    content = (before if before.strip() else "") + (after if after.strip() else "")
    if case.tool == "openai":
        before = f"<|channel|>commentary<|message|>{before}<|end|>"
        after = f"<|start|>assistant<|channel|>final<|message|>{after}<|return|>"
        content = before[len("<|channel|>commentary<|message|>") : -len("<|end|>")]
        content += after[len("<|start|>assistant<|channel|>final<|message|>") : -len("<|return|>")]
    schemas = {
        name: {"properties": {key: {"type": _type(value)} for key, value in args.items()}}
        for name, args in calls
    }
    return before + block + after, content, calls, schemas


def _type(value: Any) -> str:
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    kinds |= {dict: "object", type(None): "null"}
    return kinds[type(value)]


def pieces(text: str, cuts: Iterable[int]) -> list[str]:
    """``text`` cut at these places, wherever they fall."""
    places = sorted({cut % (len(text) + 1) for cut in cuts})
    return [text[i:j] for i, j in zip([0, *places], [*places, len(text)], strict=True)]


cuts = st.lists(st.integers(0, 10_000), max_size=12)


def parse(
    parts: Iterable[str],
    formats: Formats,
    *,
    tools: ToolSchemas | None = None,
    prompt: str = "",
) -> Parsed:
    """Feed the parts one by one."""
    parser = make_parser(
        formats, tools={} if tools is None else tools, prompt=prompt, new_id=lambda: "id"
    )
    parsed = Parsed()
    for part in parts:
        parsed.add(parser.feed(part))
    parsed.add(parser.finish())
    return parsed


def plain_calls(parsed: Parsed) -> list[Call]:
    """Names and decoded arguments."""
    return [(call.name, json.loads(call.arguments)) for call in parsed.tool_calls]
