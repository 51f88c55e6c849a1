"""JSON Schemas: parsed, bounded and made ready to be embedded in a grammar."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NoReturn, TypeGuard

from engine.structured.limits import Limits

OPTIONS = "x-guidance"
"""llguidance's own keyword, at the root of a schema."""

LENIENT = {"lenient": True}
"""Value of ``OPTIONS`` that asks to ignore keywords which cannot be enforced."""

# One line with at most one space, as json.dumps writes it. With free white space, which
# llguidance allows by default, a weak model can go on with blanks until its tokens are spent.
_WHITESPACE = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}

# llguidance computes with doubles: larger integers would be enforced as their neighbours.
_EXACT = 2**53

_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")
_COUNT_MAX = 10**9
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


class SchemaError(ValueError):
    """The schema cannot be used; the message says why, for the caller."""


def prepare_schema(text: str, limits: Limits) -> tuple[str, int]:
    """Check a schema and set how it is to be compiled.

    Args:
        text: a JSON Schema (an object or a boolean). ``OPTIONS`` at its root may hold
            ``LENIENT``; other options are refused.

    Returns:
        JSON text for llguidance, and the size of the grammar to come in rough symbols.

    Raises:
        SchemaError: not JSON, not a schema, or beyond ``limits``. Keywords that llguidance
            cannot enforce are found by llguidance, when it compiles.
    """
    if len(text.encode("utf-8", "surrogatepass")) > limits.source_bytes:
        raise SchemaError(f"the schema is larger than {limits.source_bytes} bytes")
    schema = parse_json(text, "the schema")
    if not isinstance(schema, dict | bool):
        raise SchemaError("the schema must be a JSON object")
    lenient = False
    if isinstance(schema, dict):
        lenient = _read_options(schema)
        schema = {key: value for key, value in schema.items() if key != OPTIONS}
    weight = _Survey(limits, lenient).run(schema)
    if schema is True:
        schema = {}
    schema = _with_exact_integers(schema)
    if isinstance(schema, dict):
        schema = {**schema, OPTIONS: {**_WHITESPACE, "lenient": lenient}}
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":")), weight


_SCHEMAS_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_SCHEMA_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties")


def _with_exact_integers(schema: Any) -> Any:
    """The schema with integers that have no bounds kept within what is exact.

    Larger ones differ from reader to reader, and a weak model may go on with digits until its
    tokens are spent.
    """
    if not isinstance(schema, dict):
        return schema
    node = dict(schema)
    for key in _SCHEMAS_BY_NAME:
        if isinstance(node.get(key), dict):
            node[key] = {name: _with_exact_integers(one) for name, one in node[key].items()}
    for key in _SCHEMA_LISTS:
        if isinstance(node.get(key), list):
            node[key] = [_with_exact_integers(one) for one in node[key]]
    for key in _SCHEMAS:
        if key in node:
            node[key] = _with_exact_integers(node[key])
    if node.get("type") == "integer" and not {"enum", "const", "$ref"} & node.keys():
        if not {"minimum", "exclusiveMinimum"} & node.keys():
            node["minimum"] = -_EXACT
        if not {"maximum", "exclusiveMaximum"} & node.keys():
            node["maximum"] = _EXACT
    return node


def parse_json(text: str, what: str) -> Any:
    """Decode ``text``; raises SchemaError, also for NaN, infinities and lone surrogates."""
    try:
        text.encode()
        return json.loads(text, parse_constant=_not_json, parse_float=_finite)
    except UnicodeEncodeError:
        raise SchemaError(f"{what} holds text that is not valid Unicode") from None
    except RecursionError:
        raise SchemaError(f"{what} is nested too deeply") from None
    except ValueError as error:
        raise SchemaError(f"{what} is not valid JSON: {error}") from None


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits[:40]} is too large a number")
    return value


def _read_options(schema: Mapping[str, Any]) -> bool:
    options = schema.get(OPTIONS)
    if options is None:
        return False
    if not isinstance(options, dict) or not set(options) <= set(LENIENT):
        raise SchemaError(f"'{OPTIONS}' is not supported")
    return options.get("lenient") is True


class _Survey:
    """Walks a schema level by level, so that nesting cannot hurt it, and adds up its cost.

    It does not tell schemas from other values, such as those of an ``enum``: a keyword
    counts wherever its value has the keyword's type.
    """

    def __init__(self, limits: Limits, lenient: bool) -> None:
        self._limits = limits
        self._lenient = lenient
        self._nodes = self._items = self._all_of = self._patterns = 0
        self._multiples: list[Decimal] = []

    def run(self, schema: Any) -> int:
        """The weight of the schema. Raises SchemaError."""
        limits = self._limits
        level = [schema]
        depth = 0
        while level:
            deeper: list[Any] = []
            for value in level:
                if isinstance(value, dict):
                    self._nodes += 1
                    self._read_object(value)
                    deeper += value.values()
                elif isinstance(value, list):
                    self._nodes += 1
                    deeper += value
                elif isinstance(value, str):
                    self._require(_is_unicode(value), "it holds text that is not valid Unicode")
                elif isinstance(value, int):
                    self._require(
                        abs(value) <= _EXACT, f"{str(value)[:40]} is beyond 2^53: it is not exact"
                    )
            self._bound("nested values", self._nodes, limits.schema_nodes)
            level = deeper
            depth += bool(level)
            self._bound("levels of nesting", depth, limits.schema_depth)
        return self._nodes + self._items

    def _read_object(self, node: dict[str, Any]) -> None:
        limits = self._limits
        for key in node:
            self._require(_is_unicode(key), "it holds text that is not valid Unicode")
        for key in _COUNTS:
            count = node.get(key)
            if _is_number(count):
                self._bound(f"'{key}'", count, _COUNT_MAX)
        items = _first_number(node, "maxItems", "minItems")
        self._items += int(items)
        self._bound(
            "array items in total ('maxItems', 'minItems')", self._items, limits.array_items
        )
        self._check_counted_properties(node)
        self._check_patterns(node)
        if isinstance(node.get("allOf"), list):
            self._all_of += len(node["allOf"])
            self._bound("'allOf' entries", self._all_of, limits.all_of)
        multiple = node.get("multipleOf")
        if _is_number(multiple):
            self._multiples.append(abs(Decimal(repr(multiple))))
            self._check_multiples()

    def _check_counted_properties(self, node: dict[str, Any]) -> None:
        properties = node.get("properties")
        least = node.get("minProperties")
        if not _is_number(least) and not _is_number(node.get("maxProperties")):
            return
        if isinstance(properties, dict):
            self._bound(
                "properties beside 'minProperties' or 'maxProperties'",
                len(properties),
                self._limits.counted_properties,
            )
        required = node.get("required")
        named = len(required) if isinstance(required, list) else 0
        if _is_number(least) and least > max(1, named) and not self._lenient:
            # The grammar cannot tell a repeated key from a new one.
            raise SchemaError(
                "'minProperties' beyond the number of required properties cannot be enforced"
            )

    def _check_patterns(self, node: dict[str, Any]) -> None:
        patterns = [node["pattern"]] if isinstance(node.get("pattern"), str) else []
        by_pattern = node.get("patternProperties")
        if isinstance(by_pattern, dict):
            self._patterns += len(by_pattern)
            self._bound(
                "'patternProperties' entries", self._patterns, self._limits.pattern_properties
            )
            patterns += by_pattern
        for pattern in patterns:
            self._bound("bytes of a pattern", len(pattern.encode()), self._limits.regex_bytes)

    def _check_multiples(self) -> None:
        """Bound the automaton that all multiples could form together."""
        scale = 0
        for value in self._multiples:
            exponent = value.normalize().as_tuple().exponent
            scale = max(scale, -exponent if isinstance(exponent, int) else 0)
        self._require(scale <= 9, "'multipleOf' has more than 9 decimal places")
        states = 1
        for value in self._multiples:
            states = math.lcm(states, int(value.scaleb(scale)) or 1)
            self._bound("states for 'multipleOf'", states, self._limits.multiple_of)

    def _bound(self, what: str, value: float, most: float) -> None:
        self._require(value <= most, f"it needs {value} {what}, and at most {most} are possible")

    def _require(self, holds: bool, message: str) -> None:
        if not holds:
            raise SchemaError(f"the schema cannot be enforced: {message}")


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _first_number(node: Mapping[str, Any], *keys: str) -> float:
    return next((node[key] for key in keys if _is_number(node.get(key))), 0)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
