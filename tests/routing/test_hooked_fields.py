"""Answers of other servers in shapes that nobody has announced: nothing gets past the hooks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hooked_streams import PROTOCOLS, SECRETS, Json, hooked, passed, sse
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.relay.errors import NotUnderstood

FIELDS = (
    *("type", "index", "delta", "content", "text", "thinking", "item", "part", "output"),
    *("choices", "message", "tool_calls", "function", "arguments", "reasoning", "refusal"),
    *("function_call", "response", "status", "output_index", "content_index", "name"),
    *("content_block", "finish_reason", "stop_reason", "summary", "annotations", "input"),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([*SECRETS, "", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(FIELDS),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
KINDS_OF_EVENTS = (
    *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
    *("message_delta", "ping", "text_delta", "response.output_text.delta"),
    *("response.output_text.done", "response.output_item.done", "response.completed"),
    *("response.content_part.done", "response.something.new"),
)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*PROTOCOLS, "completions"]), st.lists(JSON, max_size=4), st.data())
def test_no_event_of_any_shape_raises_anything_else(api: str, values: list[Any], data: Any) -> None:
    events = [value for value in values if isinstance(value, dict)]
    for event in events:
        if api in ("messages", "responses"):
            event["type"] = data.draw(st.sampled_from(KINDS_OF_EVENTS))
        elif data.draw(st.booleans()):
            event["choices"] = [event.get("delta"), event.get("message"), {"index": 0, **event}]
    try:
        shown = passed(hooked(api), [sse(events, named=api in ("messages", "responses"))])
    except NotUnderstood:
        return
    assert shown.endswith(b"\n\n") or not shown


HOLDERS = (
    *("content", "text", "thinking", "delta", "message", "tool_calls", "function", "arguments"),
    *("reasoning", "refusal", "function_call", "summary", "annotations", "input", "other", "code"),
)
HOLDING = st.recursive(
    st.sampled_from([f"to {secret}." for secret in SECRETS]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=2)
        | st.dictionaries(st.sampled_from(HOLDERS), inner, min_size=1, max_size=4)
    ),
    max_leaves=8,
)
TYPES = st.sampled_from(
    ["text", "thinking", "tool_use", "new", "message", "output_text", "function_call", "reasoning"]
)
SHAPES: dict[str, Callable[[Json], list[Json]]] = {
    "chat": lambda held: [{"choices": [{"index": 0, **held}]}],
    "messages": lambda held: [
        {"type": "content_block_start", "index": 0, "content_block": held},
        {"type": "content_block_delta", "index": 0, "delta": held, "more": held},
        {"type": "content_block_stop", "index": 0},
    ],
    "responses": lambda held: [
        {"type": "response.output_item.added", "output_index": 0, "item": held},
        {"type": "response.content_part.done", "output_index": 0, "part": held, "more": held},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "x", "more": held},
        {"type": "response.output_text.done", "output_index": 0, "text": held},
        {"type": "response.new.delta", "output_index": 0, "delta": held},
        {"type": "response.completed", "response": {"status": "completed", "output": [held]}},
    ],
}
WHOLES = {
    "chat": lambda held: {"choices": [{"index": 0, **held}]},
    "messages": lambda held: {"content": [held]},
    "responses": lambda held: {"output": [held]},
}


@pytest.mark.parametrize("api", SHAPES)
@settings(max_examples=80, deadline=None)
@given(holding=HOLDING, kind=TYPES)
async def test_no_secret_gets_out_in_any_field(api: Any, holding: Any, kind: str) -> None:
    held = holding if isinstance(holding, dict) else {"content": holding}
    held = {**held, "type": kind}
    for stream in (True, False):
        try:
            if stream:
                data = sse(SHAPES[api](copy.deepcopy(held)), named=api != "chat")
                shown = passed(hooked(api), [data])
            else:
                document = WHOLES[api](copy.deepcopy(held))
                shown = await hooked(api).whole(json.dumps(document).encode())
        except NotUnderstood:
            continue
        assert not any(secret.encode() in shown for secret in SECRETS)
