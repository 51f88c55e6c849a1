"""Grammars that force a model to call tools, in the format that it was trained on.

The formats are those that ``gateway.chat.parsing`` reads, where the arguments are JSON, or
Python literals of flat types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from engine.base import StructuredOutput
from gateway.chat.constraints.fields import (
    ToolChoice,
    check_name,
    read_object,
    read_strict,
    schema_text,
)
from gateway.chat.constraints.lark import (
    GrammarWriter,
    Thinking,
    TokenId,
    add_answer,
    literal,
)
from gateway.chat.constraints.pythonic import add_python_arguments
from gateway.errors import InvalidRequest
from gateway.protocol.values import wrong_value

MAX_CALLS: Final = 64
"""Most calls that a grammar lets a model write in one turn."""


@dataclass(frozen=True, slots=True)
class _Layout:
    """How calls are written.

    Attributes:
        open, close: markers around each call, or around the list when ``list``.
        after_open, before_close: text beside the markers.
        blank: a space may stand between the marker and the list.
        separator: text between two calls.
        before_name, before_arguments, after_arguments: text of one call.
        arguments_marker: stands in place of ``before_arguments``.
        python: arguments are keyword arguments of a Python call.
    """

    open: str = ""
    close: str = ""
    after_open: str = ""
    before_close: str = ""
    list: bool = False
    blank: bool = False
    separator: str = ""
    before_name: str = '{"name": "'
    before_arguments: str = '", "arguments": '
    after_arguments: str = "}"
    arguments_marker: str = ""
    python: bool = False


_HERMES: Final = _Layout("<tool_call>", "</tool_call>", "\n", "\n", separator="\n")
_LLAMA: Final = _Layout(before_arguments='", "parameters": ', separator="; ")
_LIST: Final = _Layout(list=True, separator=", ")
_PYTHON: Final = replace(
    _LIST, before_name="", before_arguments="(", after_arguments=")", python=True
)
_LAYOUTS: Final[dict[str, _Layout]] = {
    "hermes": _HERMES,
    "qwen3_json": _HERMES,
    "granite4": _HERMES,
    "llama3_json": _LLAMA,
    "llama4_json": _LLAMA,
    "mistral": replace(_LIST, open="[TOOL_CALLS]", blank=True),
    "granite": replace(_LIST, open="<|tool_call|>", blank=True),
    "phi4_mini_json": replace(_LIST, open="functools"),
    "pythonic": _PYTHON,
    "llama4_pythonic": replace(_PYTHON, open="<|python_start|>", close="<|python_end|>"),
    "lfm2": replace(_PYTHON, open="<|tool_call_start|>", close="<|tool_call_end|>"),
}
# Mistral's tokenizers from version 11 on have the token [ARGS].
_MISTRAL_11: Final = _Layout(
    "[TOOL_CALLS]", before_name="", after_arguments="", arguments_marker="[ARGS]"
)


@dataclass(frozen=True, slots=True)
class _Function:
    name: str
    parameters: dict[str, Any]
    strict: bool


def tool_constraint(
    form: str | None,
    tools: Sequence[Mapping[str, Any]],
    choice: ToolChoice,
    *,
    parallel: bool,
    token_id: TokenId,
    thinking: Thinking | None = None,
    answer: StructuredOutput | None = None,
) -> StructuredOutput | None:
    """The grammar that enforces ``choice`` in the tool format ``form``.

    Args:
        form: a name of ``gateway.chat.parsing.TOOL_FORMATS``.
        tools: in the shape of chat completions.
        parallel: whether there may be several calls; a named choice makes exactly one.
        answer: under ``auto``, what an answer that is no call is held to.

    Returns:
        None where nothing is enforced: ``none``, and ``auto`` without strict tools or in a
        format that opens calls without a marker, where they cannot be told from text.

    Raises:
        InvalidRequest: the choice cannot be enforced in this format, or not beside ``answer``,
            or a tool is malformed.
    """
    if choice.mode == "none" or not tools:
        return None
    functions = _read_functions(tools)
    layout = _LAYOUTS.get(form or "")
    if form == "mistral" and token_id("[ARGS]") is not None:
        layout = _MISTRAL_11
    auto = choice.mode == "auto"
    if auto and answer is not None:
        if layout is None or answer.grammar is not None:
            raise InvalidRequest(
                "'tools' are not supported together with this format of the answer; set "
                "'tool_choice' to 'none' or 'required'.",
                param="tools",
                code="unsupported_parameter",
            )
    elif auto and (layout is None or not layout.open or not any(f.strict for f in functions)):
        return None
    if layout is None:
        raise InvalidRequest(
            f"'tool_choice': '{choice.name or choice.mode}' is not supported: calls cannot be "
            "enforced in the format that this model writes them in. Use 'auto'.",
            param="tool_choice",
            code="unsupported_parameter",
        )
    if choice.mode == "named":
        functions = [function for function in functions if function.name == choice.name]
    writer = GrammarWriter(token_id)
    writer.add_thinking(thinking)
    _add_bodies(writer, layout, functions)
    most = 1 if choice.mode == "named" or not parallel else MAX_CALLS
    either = auto and answer is not None
    if either and answer is not None:
        add_answer(writer, answer)
    _add_calls(writer, layout, most=most, free_text=auto and not either, either=either)
    return StructuredOutput(grammar=writer.text)


def _read_functions(tools: Sequence[Mapping[str, Any]]) -> list[_Function]:
    functions: dict[str, _Function] = {}
    for index, tool in enumerate(tools):
        path = f"tools[{index}].function"
        function = read_object(tool.get("function"), path)
        name = check_name(function.get("name"), f"{path}.name")
        if name in functions:
            wrong_value(f"{path}.name", "another tool has the same name")
        given = function.get("parameters")
        # OpenAI: a function without parameters takes none.
        parameters = read_object(given or {"additionalProperties": False}, f"{path}.parameters")
        if parameters.get("type", "object") != "object":
            wrong_value(f"{path}.parameters", "the schema must be of type 'object'")
        strict = read_strict(function, path)
        functions[name] = _Function(name, {"type": "object", **parameters}, strict)
    return list(functions.values())


def _add_bodies(writer: GrammarWriter, layout: _Layout, functions: Sequence[_Function]) -> None:
    """Rule ``body``: one call, less its markers."""
    for index, function in enumerate(functions):
        arguments = f"arguments_{index}"
        if layout.python:
            add_python_arguments(writer, arguments, function.name, function.parameters)
        else:
            schema = schema_text(function.parameters, strict=function.strict)
            writer.add(arguments, "%json", schema)
        # Up to the arguments it is one literal, so that no name is the beginning of another.
        before = "" if layout.arguments_marker else layout.before_arguments
        writer.add(
            f"body_{index}",
            literal(layout.before_name + function.name + before),
            writer.marker(layout.arguments_marker),
            arguments,
            literal(layout.after_arguments),
        )
    writer.add("body", " | ".join(f"body_{index}" for index in range(len(functions))))


def _add_calls(
    writer: GrammarWriter, layout: _Layout, *, most: int, free_text: bool, either: bool
) -> None:
    """Rule ``start``: one to ``most`` calls, in the midst of text when ``free_text``, or rule
    ``answer`` when ``either``."""
    separator = literal(layout.separator)
    if free_text:
        writer.add_text_until("opening", layout.open)
    else:
        writer.add("opening", writer.marker(layout.open))
    inner = "body"
    if layout.list:
        writer.add("more", *(("(", separator, "body", f"){{0,{most - 1}}}") if most > 1 else ()))
        blank = '" "?' if layout.blank else ""
        inner = f'{blank} "[" body more "]"'
        most = 1
    writer.add(
        "call",
        "opening",
        literal(layout.after_open),
        inner,
        literal(layout.before_close),
        writer.marker(layout.close),
    )
    if free_text:
        writer.add("start", "thinking", f"call{{0,{most}}}", "TEXT")
        return
    repeated = ("(", separator, "call", f"){{0,{most - 1}}}") if most > 1 else ()
    writer.add("calls", "call", *repeated)
    writer.add("start", "thinking", "(calls | answer)" if either else "calls")
