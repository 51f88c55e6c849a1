"""What becomes of the model's words: items and events, whatever the order and the cuts."""

import json
from typing import Any

from gateway.chat.parsing import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallStart,
)
from gateway.protocol.response_events import EventWriter, error_event
from gateway.protocol.response_output import OutputBuilder


def events_in(written: bytes) -> list[dict[str, Any]]:
    found = []
    for block in written.split(b"\n\n")[:-1]:
        name, data = block.split(b"\n")
        event = json.loads(data.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        found.append(event)
    return found


def build(*events: Event, status: str = "completed") -> tuple[list[Any], list[dict[str, Any]]]:
    builder = OutputBuilder(EventWriter(wanted=True))
    written = b"".join(builder.take(event, []) for event in events) + builder.finish(status)
    shown = events_in(written)
    assert [event["sequence_number"] for event in shown] == list(range(len(shown)))
    quiet = OutputBuilder(EventWriter(wanted=False))
    assert b"".join(quiet.take(event, []) for event in events) + quiet.finish(status) == b""
    assert [strip(item) for item in quiet.items] == [strip(item) for item in builder.items]
    done = [event["item"] for event in shown if event["type"] == "response.output_item.done"]
    assert done == builder.items
    return builder.items, shown


def strip(item: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != "id"}


def test_reasoning_text_and_calls_are_items_of_their_own() -> None:
    items, shown = build(
        ReasoningDelta("I "),
        ReasoningDelta("think"),
        ContentDelta("\n\n"),
        ContentDelta("Let me look."),
        ContentDelta("\n"),
        ToolCallStart(0, "call_a", "f"),
        ToolCallArguments(0, '{"x":'),
        ToolCallArguments(0, "1}"),
        ContentDelta("\n"),
        ToolCallStart(1, "call_b", "g"),
        ToolCallArguments(1, "{}"),
    )
    assert [item["type"] for item in items] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert items[0]["content"] == [{"type": "reasoning_text", "text": "I think"}]
    assert items[0]["summary"] == []
    assert items[1]["content"][0]["text"] == "\n\nLet me look.\n"
    assert (items[2]["call_id"], items[2]["arguments"]) == ("call_a", '{"x":1}')
    assert (items[3]["name"], items[3]["arguments"]) == ("g", "{}")
    assert {item["status"] for item in items} == {"completed"}
    kinds = [event["type"].removeprefix("response.") for event in shown]
    assert kinds[:7] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    for event in shown:
        if "item_id" in event:
            assert items[event["output_index"]]["id"] == event["item_id"]


def test_space_before_a_call_is_no_message() -> None:
    items, _ = build(ContentDelta("\n\n"), ToolCallStart(0, "c", "f"), ToolCallArguments(0, "{}"))
    assert [item["type"] for item in items] == ["function_call"]


def test_an_empty_answer_is_an_empty_message() -> None:
    items, _ = build()
    assert items[0]["content"][0]["text"] == ""
    items, shown = build(ContentDelta("  "))
    assert items[0]["content"][0]["text"] == "  "
    assert [e["delta"] for e in shown if e["type"] == "response.output_text.delta"] == ["  "]


def test_only_the_last_item_is_incomplete() -> None:
    items, _ = build(ReasoningDelta("x"), ContentDelta("half"), status="incomplete")
    assert [item["status"] for item in items] == ["completed", "incomplete"]


def test_logprobs_of_held_back_text_come_with_it() -> None:
    def entry(token: str) -> dict[str, Any]:
        return {"token": token, "logprob": -1.0, "bytes": list(token.encode()), "top_logprobs": []}

    builder = OutputBuilder(EventWriter(wanted=True))
    builder.take(ReasoningDelta("thought"), [entry("thought")])
    builder.keep([entry("a")])
    written = builder.take(ContentDelta("ab"), [entry("b")]) + builder.finish("completed")
    (delta,) = [e for e in events_in(written) if e["type"] == "response.output_text.delta"]
    assert [found["token"] for found in delta["logprobs"]] == ["a", "b"]
    (part,) = builder.items[1]["content"]
    assert [found["token"] for found in part["logprobs"]] == ["a", "b"]


def test_a_break_is_an_event_of_its_own() -> None:
    (event,) = events_in(error_event("gone", "server_error", None, "internal_error"))
    assert event["type"] == "error"
    assert (event["message"], event["code"], event["param"]) == ("gone", "internal_error", None)
    assert event["error"]["message"] == "gone"
