"""What cannot be enforced is refused with a reason, in bounded time."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from structured_walks import Walker

from engine.base import RequestRejected, StructuredOutput
from engine.structured.constraint import allowed_ids

STRING = {"type": "string"}


def rejection(walker: Walker, structured: StructuredOutput) -> RequestRejected:
    with pytest.raises(RequestRejected) as caught:
        walker.compiler.compile(structured)
    message = str(caught.value)
    assert len(message) < 600
    assert "panic" not in message
    assert "backtrace" not in message
    return caught.value


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": STRING}, "not"),
        ({"if": STRING, "then": {"minLength": 1}}, '"if"'),
        ({"type": "array", "contains": STRING}, "contains"),
        ({"type": "object", "propertyNames": STRING}, "propertyNames"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"type": "string", "format": "made-up"}, "made-up"),
        ({"type": "string", "pattern": "(?=a)b"}, "regular expression"),
        ({"type": "string", "pattern": "(a"}, "regular expression"),
        ({"type": "nonsense"}, "nonsense"),
        ({"properties": 3}, "properties"),
        ({"$ref": "#/$defs/missing"}, "missing"),
        ({"$ref": "http://localhost:1/schema"}, "localhost"),
        ({"$ref": "file:///etc/passwd"}, "etc/passwd"),
        ({"$ref": "#"}, "satisfy"),
        ({"enum": []}, "anyOf is empty"),
        (False, "false"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "minimum"),
        ({"type": "object", "required": ["a"], "additionalProperties": False}, "'a'"),
        ({"const": 2**53 + 1}, "2^53"),
        ({"type": "object", "minProperties": 2, "additionalProperties": STRING}, "minProperties"),
        ({"type": "string", "x-guidance": {"item_separator": ".*"}}, "x-guidance"),
        ([], "object"),
    ],
)
def test_refused_schemas(walker: Walker, schema: Any, said: str) -> None:
    error = rejection(walker, StructuredOutput(json_schema=json.dumps(schema)))
    assert error.param == "response_format"
    assert said in str(error)


def test_lenient_schemas_skip_what_cannot_be_enforced(walker: Walker) -> None:
    schema = {"type": "array", "uniqueItems": True, "items": {"enum": [1]}, "maxItems": 3}
    structured = StructuredOutput(
        json_schema=json.dumps({**schema, "x-guidance": {"lenient": True}})
    )
    assert set(json.loads(walker.write(structured, 1))) <= {1}


@pytest.mark.parametrize(
    ("structured", "said"),
    [
        (StructuredOutput(json_schema="{nonsense"), "not valid JSON"),
        (StructuredOutput(json_schema='{"const": NaN}'), "NaN"),
        (StructuredOutput(json_schema='{"const": 1e999}'), "too large"),
        (StructuredOutput(json_schema='{"const": "\\ud800"}'), "Unicode"),
        (StructuredOutput(json_schema="[" * 100_000), "nested"),
        (StructuredOutput(regex=""), "empty"),
        (StructuredOutput(regex="(a"), "unclosed group"),
        (StructuredOutput(regex=r"(a)\1"), "backreferences"),
        (StructuredOutput(regex="(?=a)b"), "look-around"),
        (StructuredOutput(regex=r"[^\s\S]"), "satisfy"),
        (StructuredOutput(regex="\ud800"), "Unicode"),
        (StructuredOutput(regex="a" * 10_000), "8192"),
        (StructuredOutput(choice=()), "empty"),
        (StructuredOutput(choice=("x",) * 10_001), "10000"),
        (StructuredOutput(grammar=""), "no start rule"),
        (StructuredOutput(grammar='foo: "a"'), "start"),
        (StructuredOutput(grammar="start: <nope>"), "nope"),
        (StructuredOutput(grammar="start: start"), "satisfy"),
        (StructuredOutput(grammar='start: "a" %json {'), "JSON"),
        (StructuredOutput(grammar="root ::= (((("), "GBNF"),
        (StructuredOutput(grammar="a" * 300_000), "larger"),
        (StructuredOutput(), "no constraint"),
    ],
)
def test_refused_constraints(walker: Walker, structured: StructuredOutput, said: str) -> None:
    error = rejection(walker, structured)
    assert error.param in ("response_format", "structured_outputs")
    assert said in str(error)


def test_errors_do_not_list_the_vocabulary(walker: Walker) -> None:
    assert "think" not in str(rejection(walker, StructuredOutput(grammar="start: <nope>")))


def nested(times: int, wrap: Callable[[Any], Any], inner: Any) -> Any:
    for _ in range(times):
        inner = wrap(inner)
    return inner


def chain(length: int) -> dict[str, Any]:
    links = {f"d{i}": {"items": {"$ref": f"#/$defs/d{i + 1}"}} for i in range(length)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{length}": STRING}}


def properties(count: int) -> dict[str, Any]:
    return {f"p{i}": STRING for i in range(count)}


def lark_chain(length: int, name: str) -> str:
    rules = [f'{name}{i}: ("x" {name}{i + 1})? "y"' for i in range(length)]
    return "\n".join([f"start: {name}0", *rules, f'{name}{length}: "a"'])


HOSTILE_SCHEMAS: dict[str, Any] = {
    "deep": nested(200, lambda inner: {"type": "array", "items": inner}, STRING),
    "deep enough": nested(30, lambda inner: {"type": "array", "items": inner}, STRING),
    "long chain": chain(3900),
    "longer chain": chain(30_000),
    "many items": {"type": "array", "items": STRING, "maxItems": 10**9},
    "many least items": {"type": "array", "items": STRING, "minItems": 10**6},
    "nested items": nested(
        6, lambda inner: {"type": "array", "items": inner, "maxItems": 1000, "minItems": 9}, STRING
    ),
    "long string": {"type": "string", "minLength": 10**8, "maxLength": 10**9},
    "longer string": {"type": "string", "maxLength": 10**10},
    "repetition": {"type": "string", "pattern": "^((a{1000}){1000}){1000}$"},
    "states": {"type": "string", "pattern": "^(a|b)*a(a|b){60}$"},
    "redos": {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$", "minLength": 50},
    "product": {
        "allOf": [
            {"anyOf": [{"type": "object", "properties": {f"p{i}{j}": STRING}} for j in range(10)]}
            for i in range(8)
        ]
    },
    "recursion in all of": {
        "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
        "$defs": {
            name: {"type": "object", "properties": {"c": {"$ref": f"#/$defs/{name}"}}}
            for name in "ab"
        },
    },
    "patterns": {"type": "object", "patternProperties": {f"^{i}.*a": {} for i in range(1000)}},
    "few hard patterns": {
        "type": "object",
        "patternProperties": {f"(a|b)*{c}(a|b){{{9 + i}}}": {} for i, c in enumerate("cdefghij")},
    },
    "enumeration": {"enum": [f"value {i}" for i in range(15_000)]},
    "optional properties": {"type": "object", "properties": properties(3000)},
    "counted properties": {"type": "object", "properties": properties(500), "minProperties": 1},
    "multiple": {"type": "integer", "multipleOf": 99_999_989},
    "multiples": {"allOf": [{"multipleOf": n} for n in (9973, 9967, 9949)]},
    "tiny multiple": {"type": "number", "multipleOf": 1e-300},
    "zero multiple": {"type": "number", "multipleOf": 0},
    "ranges": {"type": "number", "minimum": -1.2345e300, "maximum": 1e308},
    "large": {"description": "x" * 300_000},
}
HOSTILE: dict[str, StructuredOutput] = {
    **{name: StructuredOutput(json_schema=json.dumps(s)) for name, s in HOSTILE_SCHEMAS.items()},
    "regex repetition": StructuredOutput(regex="((a{1000}){1000}){1000}"),
    "regex repetition once": StructuredOutput(regex="a{1000000000}"),
    "regex states": StructuredOutput(regex="(.*a.{20})|(.*b.{21})|(.*c.{22})"),
    "regex unicode": StructuredOutput(regex=r"\p{L}{1,1000}\w{1000}[\s\S]{5000}"),
    "regex optional": StructuredOutput(regex="a?" * 4000),
    "regex parentheses": StructuredOutput(regex="(" * 4000 + "a" + ")" * 4000),
    "choices": StructuredOutput(choice=tuple(f"choice {i}" for i in range(10_000))),
    "lark repetition": StructuredOutput(grammar='start: x{1000}\nx: y{1000}\ny: "a"{1000000000}'),
    "lark doubling": StructuredOutput(
        grammar="\n".join(["start: A0", *(f"A{i}: A{i + 1} A{i + 1}" for i in range(60))])
        + '\nA60: "a"'
    ),
    "lark chain": StructuredOutput(grammar=lark_chain(4900, "a")),
    "lark terminal chain": StructuredOutput(grammar=lark_chain(4900, "A")),
    "lark lines": StructuredOutput(grammar=lark_chain(6000, "a")),
    "lark complement": StructuredOutput(
        grammar="start: A\nA: ~(" + "&".join(f"/.*{c}.{{20}}/" for c in "abcdefgh") + ")"
    ),
    "lark ambiguity": StructuredOutput(grammar='start: e\ne: e e e | e e | "a" | "aa"'),
    "lark schema": StructuredOutput(
        grammar="start: %json " + json.dumps(HOSTILE_SCHEMAS["many items"])
    ),
    "lark options": StructuredOutput(
        grammar='start: %json {"type": "object", "x-guidance": {"whitespace_pattern": ".*"}}'
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_input_takes_bounded_time(walker: Walker, name: str) -> None:
    # Bounds are CPU seconds of this process, far above what it takes, since machines differ.
    started = time.process_time()
    grammar = None
    with contextlib.suppress(RequestRejected):
        grammar = walker.compiler.compile(HOSTILE[name])
    assert time.process_time() - started < 20
    if grammar is None:
        return
    constraint = grammar.constraint()
    for _ in range(40):
        started = time.thread_time()
        mask = constraint.allowed_mask()
        assert time.thread_time() - started < 0.5
        if constraint.fault is not None:
            assert not mask.any()
            return
        allowed = [token for token in allowed_ids(mask).tolist() if token != walker.eos]
        if not allowed:
            return
        constraint.accept(allowed[len(allowed) // 2])


def test_repeated_hostile_input_is_remembered(walker: Walker) -> None:
    structured = HOSTILE["product"]
    rejection(walker, structured)
    started = time.thread_time()
    for _ in range(100):
        rejection(walker, structured)
    assert time.thread_time() - started < 0.5
