"""Changes a field of a JSON body in place: every byte that need not change stays as it is."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

# Strings whole, so that brackets in them do not count.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\]]', re.DOTALL)
_COLON = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_SCALAR = re.compile(rb"[^,}\] \t\r\n]+")
_OPEN = frozenset(b"{[")


@dataclass(frozen=True, slots=True)
class Span:
    """Where the value of a field stands."""

    begin: int
    end: int


def top_level(body: bytes, wanted: frozenset[str]) -> dict[str, Span]:
    """Where the values of these fields of a JSON object stand; absent ones are left out.

    ``body`` has been parsed before: it is an object, valid, without duplicate keys.
    """
    found: dict[str, Span] = {}
    depth = 0
    position = body.index(b"{")
    while found.keys() != wanted:
        token = _TOKEN.search(body, position)
        if token is None:
            break
        position = token.end()
        first = body[token.start()]
        if first in _OPEN:
            depth += 1
        elif first != 0x22:
            depth -= 1
        elif depth == 1:
            colon = _COLON.match(body, position)
            if colon is None:
                continue
            position = _value_end(body, colon.end())
            name = orjson.loads(token[0])
            if name in wanted:
                found[name] = Span(colon.end(), position)
    return found


def _value_end(body: bytes, begin: int) -> int:
    first = body[begin]
    if first not in _OPEN and first != 0x22:
        scalar = _SCALAR.match(body, begin)
        if scalar is None:
            raise ValueError("not a JSON value")
        return scalar.end()
    depth = 0
    for token in _TOKEN.finditer(body, begin):
        kind = body[token.start()]
        if kind in _OPEN:
            depth += 1
        elif kind != 0x22:
            depth -= 1
        if not depth:
            return token.end()
    raise ValueError("not a JSON value")


def with_fields(body: bytes, fields: Mapping[str, Any], present: Container[str]) -> bytes:
    """``body`` with these top-level fields set; what it has not is put first.

    ``present`` tells which fields it has; those that are set anew need not be looked for.
    """
    if not fields:
        return body
    wanted = frozenset(name for name in fields if name in present)
    spans = top_level(body, wanted) if wanted else {}
    pieces: list[bytes] = []
    position = 0
    for name, span in sorted(spans.items(), key=lambda item: item[1].begin):
        pieces += (body[position : span.begin], orjson.dumps(fields[name]))
        position = span.end
    pieces.append(body[position:])
    changed = b"".join(pieces)
    new = [name for name in fields if name not in spans]
    if not new:
        return changed
    inside = changed.index(b"{") + 1
    added = b",".join(orjson.dumps(name) + b":" + orjson.dumps(fields[name]) for name in new)
    # A comma behind the last addition, unless the object was empty.
    empty = not spans and changed[inside:].lstrip()[:1] == b"}"
    return changed[:inside] + added + (b"" if empty else b",") + changed[inside:]
