"""Whatever a model would like to write, what it writes under a constraint is valid."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structured_walks import BUNDLED, Walker
from tokenizers import Tokenizer

from engine.base import StructuredOutput

WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12)


def schema_output(schema: Any) -> StructuredOutput:
    return StructuredOutput(json_schema=json.dumps(schema))


def check(walker: Walker, schema: Any, seeds: range = range(5)) -> list[Any]:
    values = []
    for seed in seeds:
        value = json.loads(walker.write(schema_output(schema), seed))
        jsonschema.Draft202012Validator(schema).validate(value)
        values.append(value)
    return values


TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["value", "children"],
            "additionalProperties": False,
        }
    },
}
SCHEMAS: dict[str, Any] = {
    "flat": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "optional": {
        "type": "object",
        "properties": {"a": {"type": "null"}, "b": {"type": "boolean"}},
        "required": ["b"],
        "additionalProperties": False,
    },
    "open": {"type": "object", "properties": {"a": {"const": "é😀\n"}}},
    "map": {"type": "object", "additionalProperties": {"type": "number"}},
    "enum": {"enum": ["red", "grün", 3, 1.5, None, True, {"a": [1]}]},
    "bounded array": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    "tuple": {
        "type": "array",
        "prefixItems": [{"type": "string"}, {"type": "integer"}],
        "items": False,
        "minItems": 2,
    },
    "any of": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "array", "maxItems": 1}]},
    "all of": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 12}]},
    "one of": {
        "oneOf": [
            {"type": "object", "properties": {"k": {"const": k}}, "required": ["k"]}
            for k in ("a", "b")
        ]
    },
    "recursion": TREE,
    "pattern": {"type": "string", "pattern": "^[a-c]{2,5}-\\d+$", "maxLength": 12},
    "unicode length": {"type": "string", "minLength": 2, "maxLength": 4},
    "numbers": {"type": "number", "exclusiveMinimum": -1.5, "maximum": 2.25},
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 1000},
    "nested": {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {"b": TREE}, "required": ["b"]}},
        "required": ["a"],
    },
    "definitions": {
        "definitions": {"a/b c": {"type": "boolean"}},
        "type": "array",
        "items": {"$ref": "#/definitions/a~1b%20c"},
        "minItems": 1,
        "maxItems": 3,
    },
    "at least one": {
        "type": "object",
        "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
        "additionalProperties": False,
        "minProperties": 1,
    },
    "anything": {},
    "true": True,
}
# A definition of a nested schema is looked up from the root.
SCHEMAS["nested"]["$defs"] = TREE["$defs"]


@pytest.mark.parametrize("name", SCHEMAS)
def test_output_validates(walker: Walker, name: str) -> None:
    check(walker, SCHEMAS[name])


def _objects(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    def build(properties: dict[str, Any], required: int, closed: bool) -> dict[str, Any]:
        schema = {"type": "object", "properties": properties}
        schema["required"] = list(properties)[:required]
        return schema | ({"additionalProperties": False} if closed else {})

    names = st.one_of(st.sampled_from(["a", "b", "name", "x-y"]), WORDS)
    return st.builds(
        build, st.dictionaries(names, children, max_size=3), st.integers(0, 3), st.booleans()
    )


def _arrays(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(
        lambda items, least, more: {
            "type": "array",
            "items": items,
            "minItems": least,
            "maxItems": least + more,
        },
        children,
        st.integers(0, 2),
        st.integers(0, 2),
    )


def _strings() -> st.SearchStrategy[Any]:
    return st.builds(
        lambda least, more: {"type": "string", "minLength": least, "maxLength": least + more},
        st.integers(0, 5),
        st.integers(0, 10),
    )


def _integers() -> st.SearchStrategy[Any]:
    return st.builds(
        lambda low, width: {"type": "integer", "minimum": low, "maximum": low + width},
        st.integers(-(10**6), 10**6),
        st.integers(0, 10**4),
    )


SCALARS = st.one_of(
    st.sampled_from([{"type": "string"}, {"type": "number"}, {"type": "boolean"}]),
    _strings(),
    _integers(),
    st.lists(st.one_of(WORDS, st.integers(-99, 99), st.none()), min_size=1, max_size=4).map(
        lambda values: {"enum": values}
    ),
)
ANY_SCHEMA = st.recursive(
    SCALARS,
    lambda children: st.one_of(
        _objects(children),
        _arrays(children),
        st.lists(children, min_size=1, max_size=3).map(lambda options: {"anyOf": options}),
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=ANY_SCHEMA, seed=st.integers(0, 10**6))
def test_output_validates_against_random_schemas(walker: Walker, schema: Any, seed: int) -> None:
    check(walker, schema, range(seed, seed + 1))


def test_json_object(walker: Walker) -> None:
    for seed in range(10):
        value = json.loads(walker.write(StructuredOutput(json_object=True), seed))
        assert isinstance(value, dict)


REGEXES = [
    r"\d{3}-\d{4}",
    r"^(yes|no)$",
    r"[^a]{2,5}",
    r"([a-z]+ )?é{1,4}/\"?",
    r"\s*x\s+",
    "a\nb|c",
    r"(ab|a)(bc)?",
    r"\p{Greek}{1,3}",
]


@pytest.mark.parametrize("pattern", REGEXES)
def test_output_matches_regex(walker: Walker, pattern: str) -> None:
    reference = pattern.replace(
        r"\p{Greek}", "[\u0370-\u03ff\u1f00-\u1fff\u2126\U00010140-\U0001d245]"
    )
    for seed in range(8):
        text = walker.write(StructuredOutput(regex=pattern), seed)
        assert re.fullmatch(reference, text), text


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(choices=st.lists(WORDS, min_size=1, max_size=6), seed=st.integers(0, 100))
def test_output_is_a_choice(walker: Walker, choices: list[str], seed: int) -> None:
    assert walker.write(StructuredOutput(choice=tuple(choices)), seed) in choices


def test_every_choice_can_be_made(walker: Walker) -> None:
    choices = ("a", "ab", "abc", "😀", "x\x7fy", 'quote"\\', "<tool_call", "\ttab\n", "")
    for text in choices:
        assert walker.accepts(StructuredOutput(choice=choices), text)
    assert not walker.accepts(StructuredOutput(choice=choices), "abcd")


def test_lark_and_gbnf_grammars(walker: Walker) -> None:
    lark = StructuredOutput(grammar='start: sum\nsum: NUMBER ("+" NUMBER)*\nNUMBER: /[0-9]{1,3}/')
    gbnf = StructuredOutput(grammar='root ::= num ("+" num)*\nnum ::= [0-9] [0-9]?')
    for seed in range(8):
        assert re.fullmatch(r"\d{1,3}(\+\d{1,3})*", walker.write(lark, seed))
        assert re.fullmatch(r"\d\d?(\+\d\d?)*", walker.write(gbnf, seed))


def test_schema_inside_of_a_grammar(walker: Walker) -> None:
    schema = json.dumps(SCHEMAS["flat"])
    grammar = StructuredOutput(grammar=f'start: "<<" value ">>"\nvalue: %json {schema}\n')
    for seed in range(5):
        text = walker.write(grammar, seed)
        jsonschema.validate(json.loads(text[2:-2]), SCHEMAS["flat"])


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ('{"name": "Ada", "age": 36}', True),
        ('{"name":"Ada","age":36}', True),
        ('{"name": "A\\u00e9\\n\\"<tool_call", "age": 0}', False),  # é is written as itself
        ('{"name": "Aé\\n\\"<|im_end", "age": 0}', True),
        ('{"age": 36, "name": "Ada"}', False),  # properties come in the schema's order
        ('{ "name": "Ada", "age": 36}', False),
        ('{"name": "Ada",  "age": 36}', False),
        ('{"name": "Ada", "age": -1}', False),
        ('{"name": "Ada", "age": 36', False),
        ('{"name": "Ada", "age": 36, "more": 1}', False),
    ],
)
def test_what_a_schema_lets_through(walker: Walker, text: str, valid: bool) -> None:
    assert walker.accepts(schema_output(SCHEMAS["flat"]), text) is valid


@pytest.mark.skipif(not BUNDLED.is_file(), reason="the bundled model is not there")
def test_with_the_bundled_tokenizer() -> None:
    walker = Walker(Tokenizer.from_file(str(BUNDLED)))
    for schema in (SCHEMAS["flat"], TREE, {"type": "object"}):
        check(walker, schema, range(3))
