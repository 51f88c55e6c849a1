"""From a StructuredOutput to the Lark text that llguidance compiles."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NoReturn

from llguidance import regex_to_lark
from llguidance.gbnf_to_lark import any_to_lark

from engine.base import RequestRejected, StructuredOutput
from engine.structured.limits import Limits
from engine.structured.schema import SchemaError, prepare_schema

# Without this, text that the grammar leaves no choice about is forced token by token, and
# finding that text is not bounded by any fuel: (a{1000}){1000} takes seconds.
_HEADER = '%llguidance {"no_forcing": true}\n'

_EMBEDDED = re.compile(r"%(json|llguidance)\b")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Source:
    """A grammar ready to be compiled.

    Attributes:
        lark: grammar in llguidance's dialect of Lark.
        weight: its size in rough symbols; what it takes in memory grows with it.
        param: the request field to name in errors.
    """

    lark: str
    weight: int
    param: str


def field_of(structured: StructuredOutput) -> str:
    """The request field that usually asks for such a constraint."""
    is_json = structured.json_schema is not None or structured.json_object
    return "response_format" if is_json else "structured_outputs"


def make_source(structured: StructuredOutput, limits: Limits) -> Source:
    """The grammar of ``structured``. Raises RequestRejected."""
    param = field_of(structured)
    if param == "response_format":
        schema = '{"type":"object"}' if structured.json_schema is None else structured.json_schema
        try:
            embedded, weight = prepare_schema(schema, limits)
        except SchemaError as error:
            reject(param, str(error))
        return Source(f"{_HEADER}start: %json {embedded}\n", weight, param)
    if structured.regex is not None:
        lark, weight = _regex(structured.regex, limits)
    elif structured.choice is not None:
        lark, weight = _choice(structured.choice, limits)
    elif structured.grammar is not None:
        lark, weight = _grammar(structured.grammar, limits)
    else:
        reject(param, "it asks for no constraint")
    return Source(_HEADER + lark, weight, param)


def reject(param: str, why: str) -> NoReturn:
    """Raise the error for a constraint that cannot be used."""
    raise RequestRejected(f"Invalid '{param}': {why}.", param=param)


def _regex(pattern: str, limits: Limits) -> tuple[str, int]:
    _check_text("regex", pattern, limits.regex_bytes)
    # The whole output must match, which is what anchors say; llguidance knows no anchors.
    body = pattern.removeprefix("^")
    if body.endswith("$") and not _escaped(body, len(body) - 1):
        body = body[:-1]
    if not body:
        reject("structured_outputs", "'regex' matches nothing but the empty text")
    return f"start: /{regex_to_lark(body, 'dws')}/\n", len(pattern)


def _escaped(text: str, at: int) -> bool:
    backslashes = len(text[:at]) - len(text[:at].rstrip("\\"))
    return backslashes % 2 == 1


def _choice(choices: tuple[str, ...], limits: Limits) -> tuple[str, int]:
    if not choices:
        reject("structured_outputs", "'choice' is empty")
    if len(choices) > limits.choices:
        reject("structured_outputs", f"'choice' has more than {limits.choices} entries")
    _check_text("choice", "".join(choices), limits.source_bytes)
    # One terminal for all of them: the parser then has a single symbol to follow.
    quoted = " | ".join(map(quote, dict.fromkeys(choices)))
    return f"start: CHOICE\nCHOICE: {quoted}\n", len(choices) + len(quoted) // 8


def quote(text: str) -> str:
    """``text`` as a Lark string literal."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _grammar(text: str, limits: Limits) -> tuple[str, int]:
    _check_text("grammar", text, limits.source_bytes)
    if "::=" in text:
        text = _from_gbnf(text)
    if text.count("\n") > limits.grammar_lines:
        reject("structured_outputs", f"'grammar' has more than {limits.grammar_lines} lines")
    parts: list[str] = []
    weight = len(text) // 8
    end = 0
    for match in _EMBEDDED.finditer(text):
        if match.start() < end:
            continue  # inside of a schema already taken over
        body, after = _embedded_json(text, match.end())
        if match.group(1) == "json":
            try:
                body, size = prepare_schema(body, limits)
            except SchemaError as error:
                reject("structured_outputs", f"in 'grammar': {error}")
            weight += size
        parts += [text[end : match.start()], match.group(), " ", body]
        end = after
    parts.append(text[end:])
    if weight > limits.array_items + limits.schema_nodes + limits.source_bytes:
        reject("structured_outputs", "the schemas in 'grammar' are too large together")
    return "".join(parts), weight


def _embedded_json(text: str, start: int) -> tuple[str, int]:
    start += len(text[start:]) - len(text[start:].lstrip())
    try:
        _, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        reject("structured_outputs", "in 'grammar': no valid JSON follows a '%' directive")
    return text[start:end], end


def _from_gbnf(text: str) -> str:
    try:
        return str(any_to_lark(text))
    except (Exception, RecursionError) as error:
        reject("structured_outputs", f"'grammar' is not valid GBNF: {str(error)[:200]}")


def _check_text(what: str, text: str, most: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        reject("structured_outputs", f"'{what}' holds text that is not valid Unicode")
    if size > most:
        reject("structured_outputs", f"'{what}' is larger than {most} bytes")
