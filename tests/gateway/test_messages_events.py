"""The stream of events of one answer, checked against the types of Anthropic's SDK."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from anthropic.lib.streaming._messages import accumulate_event
from anthropic.types import Message, RawMessageStreamEvent
from jsonschema import Draft202012Validator
from pydantic import TypeAdapter

from engine.base import Delta
from gateway.api.openapi_messages import SCHEMAS
from gateway.chat.parsing import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallStart,
)
from gateway.chat.turn import ChatTurn, TurnDelta
from gateway.protocol.anthropic_events import AnswerPlan, EventWriter, MessageGatherer
from gateway.protocol.anthropic_request import ThinkingDisplay

SDK_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
DOCUMENTED_EVENT = Draft202012Validator(SCHEMAS["MessageStreamEvent"])
DOCUMENTED_MESSAGE = Draft202012Validator(SCHEMAS["Message"])


@dataclass
class Turn:
    """What the writer reads of a chat turn."""

    id: str = "msg_1"
    model: str = "m"
    reasoning_tokens: int = 3
    meter: Any = field(
        default_factory=lambda: SimpleNamespace(
            prompt_tokens=10, cached_tokens=4, completion_tokens=7
        )
    )


def write(
    *events: Event,
    finish: Any = "stop",
    stop: int | str | None = None,
    stops: tuple[str, ...] = (),
    thinking: ThinkingDisplay = "shown",
    fills_context: bool = False,
) -> list[dict[str, Any]]:
    """All events of an answer, one part per event of the parser."""
    plan = AnswerPlan(frozenset(stops), thinking, fills_context)
    writer = EventWriter(cast(ChatTurn, Turn()), plan)
    out = [writer.start()]
    for event in events:
        out += writer.write(TurnDelta(0, [event], Delta(0, [], "")))
    out += writer.write(TurnDelta(0, [], Delta(0, [], ""), finish, stop))
    out += writer.finish()
    return out


def message(*events: Event, **options: Any) -> dict[str, Any]:
    """The gathered message; the SDK's own gathering of the same events must agree."""
    written = write(*events, **options)
    snapshot: Any = None
    buffers: dict[int, bytes] = {}
    for event in written:
        DOCUMENTED_EVENT.validate(event)
        parsed = SDK_EVENT.validate_python(event, strict=True)
        snapshot = accumulate_event(event=parsed, current_snapshot=snapshot, json_bufs=buffers)
    gatherer = MessageGatherer(write(*events, **options)[0])
    for event in write(*events, **options):
        gatherer.take(event)
    found = gatherer.message
    DOCUMENTED_MESSAGE.validate(found)
    whole = Message.model_validate(found, strict=True)
    assert whole.to_dict(exclude_none=True) == snapshot.to_dict(exclude_none=True)
    return found


def text(answer: dict[str, Any]) -> list[tuple[str, Any]]:
    return [
        (block["type"], block.get("text", block.get("thinking"))) for block in answer["content"]
    ]


def test_a_plain_answer() -> None:
    answer = message(ContentDelta("Hel"), ContentDelta("lo"))
    assert text(answer) == [("text", "Hello")]
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("end_turn", None)
    assert answer["usage"]["input_tokens"] == 6
    assert answer["usage"]["cache_read_input_tokens"] == 4
    assert answer["usage"]["output_tokens"] == 7
    assert answer["usage"]["output_tokens_details"] == {"thinking_tokens": 3}


def test_the_order_of_events() -> None:
    events = write(ReasoningDelta("hm"), ContentDelta("\n\nyes"))
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [event["index"] for event in events if "index" in event] == [0, 0, 0, 0, 1, 1, 1]
    assert events[3]["delta"]["type"] == "signature_delta"


def test_thinking_comes_with_a_signature() -> None:
    answer = message(ReasoningDelta("a"), ReasoningDelta("b"), ContentDelta("\n\nc"))
    assert text(answer) == [("thinking", "ab"), ("text", "c")]
    assert answer["content"][0]["signature"]


def test_thinking_can_be_left_out() -> None:
    shown = ReasoningDelta("a"), ContentDelta("\n\nb")
    omitted = message(*shown, thinking="omitted")
    assert text(omitted) == [("thinking", ""), ("text", "b")]
    assert omitted["content"][0]["signature"]
    assert text(message(*shown, thinking="dropped")) == [("text", "b")]


def test_tool_uses() -> None:
    answer = message(
        ContentDelta("let me see"),
        ToolCallStart(0, "call_1", "a"),
        ToolCallArguments(0, '{"x": '),
        ToolCallArguments(0, "1}"),
        ContentDelta("\n"),
        ToolCallStart(1, "abcdefghi", "b"),
        finish="tool_calls",
    )
    assert answer["content"] == [
        {"type": "text", "text": "let me see"},
        {"type": "tool_use", "id": "toolu_1", "name": "a", "input": {"x": 1}},
        {"type": "tool_use", "id": "abcdefghi", "name": "b", "input": {}},
    ]
    assert answer["stop_reason"] == "tool_use"


def test_a_named_tool_ends_in_tool_use_as_well() -> None:
    answer = message(ToolCallStart(0, "call_1", "a"), ToolCallArguments(0, "{}"), finish="stop")
    assert answer["stop_reason"] == "tool_use"


def test_a_call_that_was_cut_off() -> None:
    answer = message(
        ToolCallStart(0, "call_1", "a"),
        ToolCallArguments(0, '{"x": 1, "y": [1, '),
        ToolCallArguments(0, '"z"'),
        finish="length",
    )
    assert answer["content"][0]["input"] == {"x": 1, "y": [1, "z"]}
    assert answer["stop_reason"] == "max_tokens"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"finish": "length"}, ("max_tokens", None)),
        ({"finish": "length", "fills_context": True}, ("model_context_window_exceeded", None)),
        ({"stop": "END", "stops": ("END",)}, ("stop_sequence", "END")),
        ({"stop": "</s>"}, ("end_turn", None)),
        ({"stop": 7}, ("end_turn", None)),
    ],
)
def test_why_it_stopped(options: dict[str, Any], expected: tuple[str, str | None]) -> None:
    answer = message(ContentDelta("x"), **options)
    assert (answer["stop_reason"], answer["stop_sequence"]) == expected


def test_an_answer_without_any_text() -> None:
    assert message()["content"] == []
    assert text(message(ContentDelta(" \n"))) == [("text", " \n")]
    assert text(message(ReasoningDelta("a"), ContentDelta("\n"))) == [("thinking", "a")]


def test_blank_text_that_goes_on_is_kept() -> None:
    assert text(message(ContentDelta("  "), ContentDelta("x"))) == [("text", "  x")]
