"""Strict JSON: valid UTF-8, no NaN or Infinity, no duplicate keys, bounded depth.

orjson refuses the first two. It keeps the last of two equal keys silently, which is how a
proxy and a server come to read one body differently, so duplicates are looked for here.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import orjson

from gateway.errors import InvalidRequest

MAX_DEPTH = 100
# Parsing a larger body takes long enough to be felt by other streams.
PARSE_INLINE_BYTES = 256 * 1024

_MAYBE_KEY = re.compile(rb'"[ \t\r\n]*:')

T = TypeVar("T")


async def parsed(body: bytes, read: Callable[[dict[str, Any]], T]) -> T:
    """What ``read`` makes of a JSON body; a large one is read in a thread.

    Raises InvalidRequest.
    """

    def parse() -> T:
        return read(parse_object(body))

    if len(body) <= PARSE_INLINE_BYTES:
        return parse()
    return await asyncio.to_thread(parse)


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object in ``body``; raises InvalidRequest for anything else."""
    if not body:
        raise InvalidRequest("The request body is empty; send a JSON object.", code="invalid_json")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(
            f"The request body is not valid JSON: {error}.", code="invalid_json"
        ) from None
    if not isinstance(document, dict):
        raise InvalidRequest("The request body must be a JSON object.", code="invalid_json")
    depth, keys = measure(document)
    if depth > MAX_DEPTH:
        raise InvalidRequest(
            f"The request body is nested deeper than {MAX_DEPTH} levels.", code="invalid_json"
        )
    # Every key is followed by '":' in the text, so the text never has fewer of these than
    # the document has keys. Strings may add more: then only a full parse can tell.
    if keys != len(_MAYBE_KEY.findall(body)):
        json.loads(body, object_pairs_hook=_refuse_duplicates)
    return document


def measure(document: Any) -> tuple[int, int]:
    """Nesting depth and total number of object keys. Iterative, so depth cannot hurt it."""
    depth = keys = 0
    level = [document]
    while level:
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                keys += len(item)
                deeper.extend(value for value in item.values() if isinstance(value, dict | list))
            else:
                deeper.extend(value for value in item if isinstance(value, dict | list))
        depth += 1
        level = deeper
    return depth, keys


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise InvalidRequest(
            f"The request body has the key {twice[:64]!r} twice in one object.",
            code="invalid_json",
        )
    return found
