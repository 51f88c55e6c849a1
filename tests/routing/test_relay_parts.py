"""The relay's parts, over everything that Hypothesis thinks of: bodies, events, responses."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.relay.body import top_level, with_fields
from gateway.relay.connection import HIGH_WATER, Connection
from gateway.relay.errors import Broken, Failed, NotUnderstood, UpstreamFault
from gateway.relay.events import EventSplitter, EventTooLong
from gateway.relay.outgoing import Incoming, changes
from gateway.relay.pool import Address, ConnectionPool
from gateway.relay.stream import StreamReader
from gateway.relay.tokens import TokenRecorder, can_be_carried
from gateway.relay.usage import Usage
from gateway.routing.config import Discovery, RemoteSpec

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(["model", "a", 'b"', "m\\odel", "stream", "ü"])
OBJECT = st.dictionaries(NAMES | st.text(max_size=5), JSON, max_size=6)
STREAM = (
    ': hi\n\ndata: {"choices":[{"delta":{"content":"Grüße 🦊"},"finish_reason":null}]}\n\n'
    'event: x\r\ndata: {"choices":[],\r\n'
    'data: "usage":{"prompt_tokens":3,"completion_tokens":2}}\r\n\r\n'
    'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
).encode()


@settings(max_examples=100, deadline=None)
@given(OBJECT, st.sampled_from([None, 0, 3]), st.booleans(), JSON, JSON)
def test_fields_are_set_in_place(
    document: dict[str, Any], indent: int | None, ascii_only: bool, model: Any, options: Any
) -> None:
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "replace")
    document = json.loads(body)
    fields = {"model": model, "stream": options}
    changed = with_fields(body, json.loads(json.dumps(fields)), document)
    assert json.loads(changed) == document | json.loads(json.dumps(fields))
    spans = top_level(body, frozenset(document))
    assert {name: json.loads(body[s.begin : s.end]) for name, s in spans.items()} == document
    untouched = {name: body[s.begin : s.end] for name, s in spans.items() if name not in fields}
    for text in untouched.values():
        assert text in changed


def test_an_escaped_key_is_the_same_key() -> None:
    body = rb'{"mod\u0065l" : "a", "x": {"model": "model"}}'
    assert (
        with_fields(body, {"model": "b"}, {"model"})
        == rb'{"mod\u0065l" : "b", "x": {"model": "model"}}'
    )


PIECES = [b"\n", b"\r", b"\r\n", b"data: x", b": c", b"\xf0\x9f"]


def read_along(pieces: list[bytes]) -> tuple[bytes, StreamReader, int]:
    splitter, reader = EventSplitter(), StreamReader("chat", drops_usage=False)
    passed, count = b"", 0
    for piece in pieces:
        for event in splitter.feed(piece):
            count += 1
            if reader.see(event):
                passed += event
    assert splitter.rest == b""
    return passed, reader, count


def test_a_stream_split_at_every_byte_is_the_same_stream() -> None:
    whole, _, count = read_along([STREAM])
    assert whole == STREAM.removeprefix(b": hi\n\n")
    for cut in range(len(STREAM) + 1):
        passed, reader, found = read_along([STREAM[:cut], STREAM[cut:]])
        assert (passed, found) == (whole, count), cut
        assert reader.complete
        assert reader.finish == "stop"
        assert (reader.usage.prompt, reader.usage.completion, reader.outputs) == (3, 2, 1)
    passed, reader, _ = read_along([STREAM[i : i + 1] for i in range(len(STREAM))])
    assert passed == whole
    assert reader.complete


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([b"\n", b"\r", b"\r\n", b"data: x", b": c", b"\xf0\x9f"])), st.data()
)
def test_every_byte_of_any_stream_comes_out_once_in_order(lines: list[bytes], data: Any) -> None:
    stream = b"".join(lines)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    splitter = EventSplitter()
    out = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        out += splitter.feed(stream[begin:end])
    assert b"".join(out) + splitter.rest == stream
    for event in out:
        assert event.rstrip(b"\r\n") != event


def test_an_endless_event_is_not_kept() -> None:
    splitter = EventSplitter(most_bytes=1000)
    assert splitter.feed(b"data: " + b"x" * 900) == []
    with pytest.raises(EventTooLong):
        splitter.feed(b"x" * 100)


@pytest.mark.parametrize(
    "event", [b"<html>\n\n", b"data: {\n\n", b"data: 7\n\n", b"data: [DONE]\n\n", b"\xff\n\n"]
)
def test_what_is_no_event_is_not_understood(event: bytes) -> None:
    with pytest.raises(NotUnderstood):
        StreamReader("chat", drops_usage=False).see(event)


@pytest.mark.parametrize(
    ("api", "event"),
    [
        ("chat", b'data: {"error": {"message": "x"}}\n\n'),
        ("messages", b'event: error\ndata: {"type":"error","error":{"type":"api_error"}}\n\n'),
        ("responses", b'event: error\ndata: {"type":"error","message":"x"}\n\n'),
    ],
)
def test_errors_within_streams_are_faults(api: Any, event: bytes) -> None:
    with pytest.raises(Failed):
        StreamReader(api, drops_usage=False).see(event)


def test_usage_of_every_protocol() -> None:
    usage = Usage()
    usage.read({"input_tokens": 5, "cache_read_input_tokens": 3, "output_tokens": 1})
    assert (usage.prompt, usage.cached, usage.completion) == (8, 3, 1)
    usage.read({"output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 4}})
    assert (usage.prompt, usage.completion, usage.reasoning) == (8, 9, 4)
    for nonsense in (None, 7, [], {"prompt_tokens": -1}, {"prompt_tokens": True}, {"x": {}}):
        usage.read(nonsense)
    assert (usage.prompt, usage.completion) == (8, 9)


def test_what_a_target_is_sent_besides() -> None:
    spec = RemoteSpec("t", "openai", Discovery(), frozenset({"chat"}))
    incoming = Incoming("chat", b"", {"model": "m", "stream": True}, {}, "r", None)
    assert changes(incoming, spec, "m") == ({"stream_options": {"include_usage": True}}, True)
    wanted = {"model": "m", "stream": True, "stream_options": {"include_usage": True}}
    assert changes(Incoming("chat", b"", wanted, {}, "r", None), spec, "m") == ({}, False)
    assert changes(Incoming("chat", b"", {"model": "m"}, {}, "r", None), spec, "m") == ({}, False)


def test_token_ids_are_taken_out_of_events_and_kept() -> None:
    recorder = TokenRecorder()
    text = ',"token_ids":[1]'
    bare = {"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "token_ids": [7, 8]}]}
    event = b"data: " + json.dumps(bare | {"prompt_token_ids": [1, 2]}).encode() + b"\n\n"
    taken = recorder.take(event, json.loads(event[6:]))
    del bare["choices"][0]["token_ids"]  # type: ignore[index]
    assert taken == b"data: " + json.dumps(bare).encode() + b"\n\n"
    assert (recorder.prompt_ids, recorder.output_ids, recorder.text) == ([1, 2], [7, 8], text)
    assert recorder.usable
    recorder.note({"choices": [{"delta": {"reasoning_content": "hm"}}]})
    assert not recorder.usable


@pytest.mark.parametrize(
    ("more", "fits"),
    [
        ({"temperature": 1, "top_p": 0.5, "stop": None, "n": 1}, True),
        ({"stop": ["x"]}, False),
        ({"seed": 1}, False),
        ({"n": 2}, False),
        ({"tools": [{}]}, False),
        ({"presence_penalty": 1}, False),
        ({"prompt": [1, 2]}, True),
        ({"prompt": ["a", "b"]}, False),
    ],
)
def test_what_can_be_carried_on_exactly(more: dict[str, Any], fits: bool) -> None:
    assert can_be_carried({"model": "m", "stream": True} | more) == fits


BODY = b'{"a": "' + "🦊".encode() + b'"}'
RESPONSES = {
    "length": b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY,
    "chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n"
    + BODY[:3]
    + b"\r\n%x;x=y\r\n" % (len(BODY) - 3)
    + BODY[3:]
    + b"\r\n0\r\ntrailer: x\r\n\r\n",
    "close": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    "interim": b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n"
    % len(BODY)
    + BODY,
}


async def exchange_with(pieces: list[bytes]) -> tuple[int, bytes, bool]:
    """What a connection makes of a server that sends these pieces and closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    pool = ConnectionPool(Address.of_url(f"http://127.0.0.1:{port}/v1"), 30)
    try:
        async with pool.connection() as connection:
            await connection.request(b"GET / HTTP/1.1\r\n\r\n", 30)
            body = b""
            while data := await connection.read(30):
                body += data
            return connection.status, body, connection.reusable
    finally:
        pool.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("kind", RESPONSES)
async def test_responses_of_every_form_in_every_pair_of_pieces(kind: str) -> None:
    response = RESPONSES[kind]
    for cut in range(0, len(response), 3):
        status, body, _ = await exchange_with([response[:cut], response[cut:]])
        assert (status, body) == (200, BODY), cut


@pytest.mark.parametrize("kind", ["length", "chunked"])
async def test_a_response_cut_short_is_no_response(kind: str) -> None:
    for end in (0, 10, len(RESPONSES[kind]) - 1):
        with pytest.raises(Broken):
            await exchange_with([RESPONSES[kind][:end]])


async def test_a_second_response_that_nobody_asked_for_is_not_read() -> None:
    status, body, reusable = await exchange_with([RESPONSES["length"] * 2])
    assert (status, body, reusable) == (200, BODY, False)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_a_fault(reply: bytes) -> None:
    with pytest.raises(UpstreamFault):
        await exchange_with([reply])


async def test_a_reader_that_waits_slows_its_server_down() -> None:
    body = b"x" * (64 * HIGH_WATER)
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
    sent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + body)
        await writer.drain()
        sent.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    transport, connection = await loop.create_connection(Connection, "127.0.0.1", port)
    await connection.request(b"GET / HTTP/1.1\r\n\r\n", 30)
    await asyncio.sleep(0.2)
    assert not sent.is_set()
    size = 0
    while data := await connection.read(30):
        size += len(data)
    assert size == len(body)
    assert sent.is_set()
    transport.close()
    server.close()
    await server.wait_closed()
