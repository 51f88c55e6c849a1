"""Streams of every protocol with texts to rewrite, and what comes out of them."""

from __future__ import annotations

import json
import re
from typing import Any

from gateway.hooks.answer import HookedAnswer
from gateway.hooks.api import About, AnswerView, Channel, TextRewriter
from gateway.hooks.redact import KNOWN, Redact
from gateway.relay.events import EventSplitter
from gateway.relay.hooked.stream import HookedBytes

Json = dict[str, Any]
ABOUT = About("r", "chat", None, "k", "o", "p", stream=True)
SECRETS = ("ann.lee@mail.example.com", "4111 1111 1111 1111", "sk-" + "aB3x" * 6)
PATTERN = re.compile("|".join(KNOWN.values()))


def redacted(text: str) -> str:
    return PATTERN.sub("#", text)


def hooked(api: Any, choices: int = 1, seen: list[AnswerView] | None = None) -> HookedBytes:
    hook = Redact(replacement="#")

    def chain(channel: Channel) -> list[TextRewriter]:
        return [hook.rewriter(ABOUT, channel)]

    return HookedBytes(api, HookedAnswer(choices, chain, None if seen is None else seen.append))


def sse(documents: list[Json], *, named: bool = False, done: bool = True) -> bytes:
    lines = [
        (f"event: {d['type']}\n" if named else "") + f"data: {json.dumps(d, ensure_ascii=False)}"
        for d in documents
    ]
    end = [] if named or not done else ["data: [DONE]"]
    return "".join(f"{line}\n\n" for line in [*lines, *end]).encode()


def passed(answer: HookedBytes, pieces: list[bytes]) -> bytes:
    """As ``Relay`` does it: whole events of what has come, then the rest."""
    splitter = EventSplitter()
    shown = b"".join(answer.events(b"".join(splitter.feed(piece))) for piece in pieces)
    return shown + answer.rest()


def documents(stream: bytes) -> list[Json]:
    lines = [line for line in stream.decode().split("\n") if line.startswith("data: {")]
    return [json.loads(line[6:]) for line in lines]


def chat_stream(pieces: dict[str, list[str]]) -> bytes:
    base = {"id": "x", "object": "chat.completion.chunk", "model": "m", "usage": None}
    deltas: list[Json] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning": p, "reasoning_content": p} for p in pieces["reasoning"]]
    deltas += [{"content": piece, "secret_twin": piece} for piece in pieces["content"]]
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
    deltas.append({"tool_calls": [call]})
    deltas += [
        {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
        for piece in pieces["arguments"]
    ]
    chunks = [{**base, "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    end = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    chunks.append({**base, "choices": [end]})
    return sse([*chunks, {**base, "choices": [], "usage": {"total_tokens": 9}}])


def chat_texts(shown: list[Json]) -> dict[str, str]:
    texts = {"reasoning": "", "content": "", "arguments": ""}
    finished = False
    for document in shown:
        for choice in document["choices"]:
            assert not finished, "something after the finish reason"
            delta = choice["delta"]
            assert delta.get("reasoning") == delta.get("reasoning_content")
            texts["reasoning"] += delta.get("reasoning") or ""
            texts["content"] += delta.get("content") or ""
            for call in delta.get("tool_calls") or ():
                texts["arguments"] += call["function"]["arguments"]
            finished = choice.get("finish_reason") is not None
    assert finished
    assert shown[-1] == {**shown[-1], "choices": [], "usage": {"total_tokens": 9}}
    return texts


def message_stream(pieces: dict[str, list[str]]) -> bytes:
    blocks: list[tuple[Json, list[Json]]] = [
        (
            {"type": "thinking", "thinking": "", "signature": ""},
            [{"type": "thinking_delta", "thinking": piece} for piece in pieces["reasoning"]]
            + [{"type": "signature_delta", "signature": "s"}],
        ),
        (
            {"type": "text", "text": ""},
            [{"type": "text_delta", "text": piece} for piece in pieces["content"]],
        ),
        (
            {"type": "tool_use", "id": "t", "name": "f", "input": {}},
            [{"type": "input_json_delta", "partial_json": p} for p in pieces["arguments"]],
        ),
    ]
    events: list[Json] = [{"type": "message_start", "message": {"id": "m", "content": []}}]
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": d} for d in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}})
    return sse([*events, {"type": "message_stop"}], named=True)


def message_texts(shown: list[Json]) -> dict[str, str]:
    names = {"thinking": "reasoning", "text": "content", "partial_json": "arguments"}
    texts = dict.fromkeys(names.values(), "")
    open_block: int | None = None
    signed = False
    for event in shown:
        if event["type"] == "content_block_start":
            assert open_block is None
            open_block = event["index"]
        elif event["type"] == "content_block_delta":
            assert event["index"] == open_block
            signed = signed or event["delta"]["type"] == "signature_delta"
            for field, name in names.items():
                if field in event["delta"]:
                    assert not (signed and name == "reasoning"), "thinking after its signature"
                    texts[name] += event["delta"][field]
        elif event["type"] == "content_block_stop":
            assert event["index"] == open_block
            open_block = None
    assert [event["type"] for event in shown[-2:]] == ["message_delta", "message_stop"]
    return texts


def item_of(place: int, texts: dict[str, str]) -> Json:
    return [
        {
            "type": "reasoning",
            "id": "i0",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": texts["reasoning"]}],
        },
        {
            "type": "message",
            "id": "i1",
            "role": "assistant",
            "content": [{"type": "output_text", "text": texts["content"], "annotations": []}],
        },
        {
            "type": "function_call",
            "id": "i2",
            "call_id": "c",
            "name": "f",
            "arguments": texts["arguments"],
        },
    ][place]


KINDS = (
    ("reasoning", "reasoning_text", "text"),
    ("content", "output_text", "text"),
    ("arguments", "function_call_arguments", "arguments"),
)


def response_stream(pieces: dict[str, list[str]]) -> bytes:
    whole = {name: "".join(parts) for name, parts in pieces.items()}
    empty = dict.fromkeys(whole, "")
    head = {"id": "r", "status": "in_progress", "output": []}
    events: list[Json] = [{"type": "response.created", "response": head}]
    for place, (name, kind, field) in enumerate(KINDS):
        at: Json = {"output_index": place, "item_id": f"i{place}"}
        part = at if name == "arguments" else {**at, "content_index": 0}
        added = {**at, "type": "response.output_item.added", "item": item_of(place, empty)}
        events.append(added)
        if name == "content":
            shape = {"type": "output_text", "text": "", "annotations": []}
            events.append({**part, "type": "response.content_part.added", "part": shape})
        events += [
            {**part, "type": f"response.{kind}.delta", "delta": piece, "logprobs": []}
            for piece in pieces[name]
        ]
        events.append({**part, "type": f"response.{kind}.done", field: whole[name]})
        if name == "content":
            shape = {"type": "output_text", "text": whole[name], "annotations": []}
            events.append({**part, "type": "response.content_part.done", "part": shape})
        item = item_of(place, whole)
        events.append({**at, "type": "response.output_item.done", "item": item})
    output = [item_of(place, whole) for place in range(3)]
    last = {"id": "r", "status": "completed", "output": output, "usage": {}}
    events.append({"type": "response.completed", "response": last})
    return sse([{**e, "sequence_number": i} for i, e in enumerate(events)], named=True)


def response_texts(shown: list[Json]) -> dict[str, str]:
    numbers = [event["sequence_number"] for event in shown]
    assert numbers == list(range(len(shown)))
    texts = dict.fromkeys(("reasoning", "content", "arguments"), "")
    for event in shown:
        for name, kind, field in KINDS:
            if event["type"] == f"response.{kind}.delta":
                texts[name] += event["delta"]
            elif event["type"] == f"response.{kind}.done":
                assert event[field] == texts[name]
        if event["type"] == "response.output_item.done":
            assert event["item"] == item_of(event["output_index"], texts)
        elif event["type"] == "response.content_part.done":
            assert event["part"]["text"] == texts["content"]
    assert shown[-1]["type"] == "response.completed"
    assert shown[-1]["response"]["output"] == [item_of(place, texts) for place in range(3)]
    return texts


PROTOCOLS: dict[str, Any] = {
    "chat": (chat_stream, chat_texts),
    "messages": (message_stream, message_texts),
    "responses": (response_stream, response_texts),
}
