"""The JSON reader refuses what two parsers could read differently, and never fails otherwise."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.protocol.json_body import MAX_DEPTH, parse_object

SHORT = st.text(max_size=6)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | SHORT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT, inner, max_size=3),
    max_leaves=8,
)


def nested(depth: int) -> bytes:
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":"\xff"}',
        b'{"a":"\\ud800"}',
        b"{'a':1}",
        b'{"a":1,}',
        b'{"a":1}{"a":2}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"a":1}}',
        b'{"x":[{"a\\\\":1,"a\\\\":2}]}',
        b'{"a":1,"\\u0061":2,"b":"c"}',
        b'{"s":"\\":","a":1,"a":2}',
        nested(MAX_DEPTH + 1),
        b"[" * 100_000,
    ],
)
def test_bad_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        parse_object(body)
    assert refusal.value.code == "invalid_json"
    assert "duplicate" not in str(refusal.value) or "twice" in str(refusal.value)


def test_depth_at_the_bound_is_accepted() -> None:
    assert parse_object(nested(MAX_DEPTH))


def test_strings_that_look_like_keys_are_no_duplicates() -> None:
    body = {"a": '{"b": 1, "b": 2}', "b": ': "b":', ":": '":'}
    assert parse_object(json.dumps(body).encode()) == body


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(SHORT, ANY_JSON, max_size=4))
def test_every_valid_object_is_read_as_the_standard_parser_reads_it(body: dict[str, Any]) -> None:
    try:
        encoded = json.dumps(body).encode()
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return
    assert parse_object(encoded) == body


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_give_an_object_or_a_refusal(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest):
        assert isinstance(parse_object(body), dict)
