"""An answer of another server on its way through hooks."""

from __future__ import annotations

import asyncio
import re
from typing import Protocol

import orjson

from gateway.hooks.answer import HookedAnswer
from gateway.protocol.sse import DONE, event, named_event
from gateway.relay.answer import INLINE_BYTES
from gateway.relay.events import EventSplitter, payload_of
from gateway.relay.hooked.chat import ChatRewriter
from gateway.relay.hooked.messages import MessageRewriter
from gateway.relay.hooked.responses import ResponseRewriter
from gateway.relay.hooked.texts import Json
from gateway.routing.config import Api

_NAME = re.compile(r"[\w.]{1,100}", re.ASCII)


class Rewriter(Protocol):
    """Knows where the texts of one protocol are. Raises HookFailed, and NotUnderstood."""

    def whole(self, document: Json) -> None:
        """Rewrite an answer in one piece, in place."""

    def event(self, document: Json) -> list[Json]:
        """What a stream's next event becomes; it may be changed in place."""

    def end(self) -> list[Json]:
        """Events for what is held back at the end."""


def rewriter_for(api: Api, answer: HookedAnswer) -> Rewriter:
    """The one for a protocol."""
    if api == "messages":
        return MessageRewriter(answer)
    return ResponseRewriter(answer) if api == "responses" else ChatRewriter(answer)


class HookedBytes:
    """Takes the bytes of an answer that is complete as far as it has come, and gives those that
    the caller is to get. Where hooks only look on they are the same bytes.

    Every method raises HookFailed, and NotUnderstood for what is no answer.
    """

    def __init__(self, api: Api, answer: HookedAnswer) -> None:
        self._answer = answer
        self._rewriter = rewriter_for(api, answer)
        self._is_named = api in ("messages", "responses")
        self._splitter = EventSplitter()
        self.close = answer.close

    async def whole(self, body: bytes) -> bytes:
        """An answer in one piece."""
        if len(body) > INLINE_BYTES:
            document = await asyncio.to_thread(orjson.loads, body)
        else:
            document = orjson.loads(body)
        self._rewriter.whole(document)
        if not self._answer.rewrites:
            return body
        if len(body) > INLINE_BYTES:
            return await asyncio.to_thread(orjson.dumps, document)
        return orjson.dumps(document)

    def events(self, data: bytes) -> bytes:
        """More of a stream: whole events."""
        parts = [self._event(one) for one in self._splitter.feed(data)]
        return b"".join(parts) if self._answer.rewrites else data

    def rest(self) -> bytes:
        """What is left after the stream's end."""
        return self._written(self._rewriter.end())

    def _event(self, one: bytes) -> bytes:
        payload = payload_of(one)
        if not payload:
            return b""
        if payload == b"[DONE]":
            return self._written(self._rewriter.end()) + DONE
        return self._written(self._rewriter.event(orjson.loads(payload)))

    def _written(self, documents: list[Json]) -> bytes:
        """Nothing where hooks only look on, and the server's own bytes go out."""
        return b"".join(map(self._framed, documents)) if self._answer.rewrites else b""

    def _framed(self, document: Json) -> bytes:
        data = orjson.dumps(document)
        if self._is_named and _NAME.fullmatch(name := str(document.get("type"))):
            return named_event(name.encode(), data)
        return event(data)
