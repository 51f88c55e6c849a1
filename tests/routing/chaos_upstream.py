"""An HTTP server that misbehaves on request: the first segment of the path says how.

A fault injector, and nothing else: it writes bytes to sockets and knows no model.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import Any

HEAD = b"HTTP/1.1 200 OK\r\n"
EVENTS_TYPE = b"content-type: text/event-stream\r\n"
JSON_TYPE = b"content-type: application/json\r\n"
WORDS = ["Grüße", ", ", "fox 🦊", "."]
ROLE = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class ChaosUpstream:
    """Runs in a thread of its own, on a free port."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.gate = threading.Event()
        self.late = threading.Event()
        self.more = threading.Event()
        self.broken: set[str] = set()
        self.health = 200
        self.at_once = self.most_at_once = 0
        self._kept: list[asyncio.StreamWriter] = []  # so that ids stay unique
        self._loop = asyncio.new_event_loop()
        started = threading.Event()

        async def serve() -> None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]
            started.set()
            await self._stop.wait()
            self._server.close()

        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(serve()))
        self._thread.start()
        started.wait()

    def url(self, behaviour: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}/{behaviour}/v1"

    def requests(self, behaviour: str) -> list[Seen]:
        """Those that came for a behaviour, oldest first."""
        return [seen for seen in self.seen if seen.path.startswith(f"/{behaviour}/")]

    def connections(self, behaviour: str) -> int:
        """How many connections its last five requests came over."""
        return len({seen.connection for seen in self.requests(behaviour)[-5:]})

    def close(self) -> None:
        self.gate.set()
        self.late.set()
        self.more.set()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        while tasks := asyncio.all_tasks(self._loop):
            for task in tasks:
                task.cancel()
            self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        path = line.split(" ")[1]
        if path == "/health":
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % self.health)
            return True
        seen = Seen(path, headers, body, id(writer))
        self._kept.append(writer)
        self.seen.append(seen)
        behaviour = path.split("/")[1]
        if behaviour in self.broken:
            behaviour = "status_500"
        watch = asyncio.create_task(self._note_close(reader, seen))
        try:
            return await self._behave(behaviour, seen, writer)
        finally:
            watch.cancel()

    async def _note_close(self, reader: asyncio.StreamReader, seen: Seen) -> None:
        while not reader.at_eof() and reader.exception() is None:
            await asyncio.sleep(0.005)
        seen.closed.set()

    async def _behave(self, behaviour: str, seen: Seen, writer: asyncio.StreamWriter) -> bool:
        name, _, value = behaviour.partition("_")
        if name == "status":
            writer.write(refusal(int(value)))
            return True
        stream = seen.document.get("stream") is True
        whole = sse(seen) if stream else whole_json(seen)
        head = HEAD + (EVENTS_TYPE if stream else JSON_TYPE)
        if behaviour.startswith("ok"):
            writer.write(chunked(head, whole))
            return True
        if behaviour == "gated":  # begins an answer, goes on when the test says so
            writer.write(begin_chunked(head, cut(whole)))
            await asyncio.get_running_loop().run_in_executor(None, self.gate.wait)
            writer.write(chunk(whole[len(cut(whole)) :]) + b"0\r\n\r\n")
            return True
        if behaviour == "long":  # goes on when the test says so, and never ends
            writer.write(begin_chunked(head, long_events(seen, 0, 39)))
            await asyncio.get_running_loop().run_in_executor(None, self.more.wait)
            writer.write(chunk(long_events(seen, 39, 45)))
            while not seen.closed.is_set():
                await asyncio.sleep(0.005)
            return False
        if behaviour == "late":  # begins its answer when the test says so
            await asyncio.get_running_loop().run_in_executor(None, self.late.wait)
            writer.write(chunked(head, whole))
            return True
        if behaviour == "wrongmodel":  # answers as another model than it was asked for
            other = seen.document.get("model", "").encode()
            writer.write(chunked(head, whole.replace(b'"%s"' % other, b'"someone-else"')))
            return True
        if behaviour == "pace":  # takes a moment, and knows how many it works on
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            await asyncio.sleep(0.02)
            self.at_once -= 1
            writer.write(chunked(head, whole))
            return True
        if behaviour == "stale":  # keeps the connection, and closes it with the next request
            if len(self.requests("stale")) % 2:
                writer.write(chunked(head, whole))
                return True
            return False
        if behaviour == "drip":
            for byte in chunked(head, whole):
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            return True
        sent = misbehaviour(behaviour, head, whole)
        writer.write(sent)
        await writer.drain()
        if behaviour.startswith("hang"):
            while not seen.closed.is_set():
                await asyncio.sleep(0.005)
        if behaviour.startswith("reset"):
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        return False


def misbehaviour(behaviour: str, head: bytes, whole: bytes) -> bytes:
    """The bytes that are sent before the worst happens."""
    begun = begin_chunked(head, cut(whole))
    return {
        "hang": b"",
        "hangmid": begun,
        "hangrole": begin_chunked(head, ROLE),
        "reset": b"",
        "resetmid": begun,
        "garbage": b"\x00\x01\x02 what is this\r\n\r\n",
        "garbagemid": begun + chunk(b"<html>oops</html>\n\n"),
        "badjsonmid": begun + chunk(b'data: {"choices": [\n\n'),
        "errormid": begun + chunk(b'data: {"error":{"message":"secret path /srv/x"}}\n\n'),
        "errorfirst": begin_chunked(head, b'data: {"error":{"message":"secret path"}}\n\n'),
        "html": chunked(HEAD + b"content-type: text/html\r\n", b"<html></html>"),
        "truncated": head + b"content-length: 5000\r\n\r\n" + whole[:20],
        "nodone": chunked(head, cut(whole)),
        "hugehead": HEAD + b"x-much: " + b"a" * 200_000,
    }[behaviour]


def refusal(status: int) -> bytes:
    """An error answer in OpenAI's shape."""
    error = {"message": f"refused with {status}", "type": "t", "param": "messages", "code": "c"}
    if status == 400:
        error |= {"code": "context_length_exceeded", "message": "This is too long."}
    body = json.dumps({"error": error}).encode()
    lines = b"HTTP/1.1 %d Reason\r\nretry-after: 7\r\ncontent-length: %d\r\n" % (status, len(body))
    return lines + JSON_TYPE + b"\r\n" + body


def whole_json(seen: Seen) -> bytes:
    """An answer in one piece; oddly spaced, so that a byte-for-byte relay shows."""
    message = {"role": "assistant", "content": "".join(WORDS)}
    answer = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": seen.document.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "text": "t"}],
        "usage": USAGE,
    }
    return json.dumps(answer, indent=3, ensure_ascii=True).encode()


def sse(seen: Seen) -> bytes:
    """A chat stream as OpenAI sends it."""
    base = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "up"}
    events = []
    for word in WORDS:
        choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
        events.append({**base, "choices": [choice]})
    events.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (seen.document.get("stream_options") or {}).get("include_usage"):
        events.append({**base, "choices": [], "usage": USAGE})
    data = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode() for event in events]
    return b": hello\n\n" + b"".join(data) + b"data: [DONE]\n\n"


def long_events(seen: Seen, begin: int, end: int) -> bytes:
    """Pieces of a text, of ten characters each, as the protocol of the request has them."""
    protocol = seen.path.rsplit("/", 1)[1]
    shapes: list[Any] = []
    for number in range(begin, end):
        text = f"word {number:04} "
        if protocol == "messages":
            delta = {"type": "text_delta", "text": text}
            shapes.append({"type": "content_block_delta", "index": 0, "delta": delta})
        elif protocol == "responses":
            at = {"item_id": "i", "output_index": 0, "content_index": 0, "sequence_number": number}
            shapes.append({"type": "response.output_text.delta", **at, "delta": text})
        else:
            shapes.append({"id": "x", "choices": [{"index": 0, "delta": {"content": text}}]})
    return b"".join(f"data: {json.dumps(shape)}\n\n".encode() for shape in shapes)


def cut(whole: bytes) -> bytes:
    """About two events, the last one whole."""
    end = whole.find(b"\n\n", whole.find(b"\n\n", whole.find(b"\n\n") + 2) + 2) + 2
    return whole[:end] if end > 2 else whole[: len(whole) // 2]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def begin_chunked(head: bytes, data: bytes) -> bytes:
    return head + b"transfer-encoding: chunked\r\n\r\n" + chunk(data)


def chunked(head: bytes, data: bytes) -> bytes:
    return begin_chunked(head, data) + b"0\r\n\r\n"


def closed_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
