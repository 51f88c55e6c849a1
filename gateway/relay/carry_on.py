"""Has another server of the same model finish a stream that its server broke off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import orjson

from gateway.relay.answer import ask as ask_server
from gateway.relay.answer import check_type, read_json
from gateway.relay.errors import Broken, Rejected, UpstreamFault
from gateway.relay.events import EventSplitter
from gateway.relay.outgoing import Incoming
from gateway.relay.stream import StreamReader
from gateway.relay.tokens import CARRIED, TokenRecorder
from gateway.routing.config import API_PATHS
from gateway.routing.upstream import Upstream

# Tokens at the end whose text may still be held back: those of an unfinished character.
MOST_UNSENT = 8
AROUND_S = 10.0


class CarryOn:
    """What is left of one stream.

    Args:
        model: the model's name at the servers.
    """

    def __init__(self, incoming: Incoming, model: str, tokens: TokenRecorder) -> None:
        self._incoming = incoming
        self._model = model
        self._tokens = tokens

    async def events(self, upstream: Upstream) -> AsyncGenerator[bytes, None]:
        """The rest of the stream as the first server would have sent it.

        Raises UpstreamFault; what has been yielded until then is part of the answer.
        """
        async with asyncio.timeout(AROUND_S):
            await self._find_the_seam(upstream)
            left = await self._left(upstream)
        request = self._request(upstream, left)
        reader = StreamReader("completions", drops_usage=False)
        splitter = EventSplitter()
        idle_s = upstream.spec.timeouts.idle
        async with ask_server(upstream, request) as connection:
            check_type(connection, b"text/event-stream")
            while not reader.complete:
                data = await connection.read(idle_s)
                if not data:
                    break
                for event in splitter.feed(data):
                    reader.see(event)
                    if (document := reader.document) is not None:
                        shaped = self._shaped(document)
                        self._tokens.note(document)
                        if shaped:
                            yield shaped
            if not reader.ended_well:
                raise Broken("the stream ended before the answer did")

    async def _find_the_seam(self, upstream: Upstream) -> None:
        """Forget tokens whose text has not been passed on: the next server makes them again."""
        tokens = self._tokens
        for _ in range(MOST_UNSENT):
            body = {"model": self._model, "tokens": tokens.output_ids}
            path = upstream.address.path.removesuffix("/v1") + "/detokenize"
            text = (await self._post(upstream, path, body)).get("prompt")
            if text == tokens.text:
                return
            tokens.output_ids.pop()
            if not tokens.output_ids:
                break
        raise cannot("the tokens do not spell the text")

    async def _left(self, upstream: Upstream) -> int:
        """Output tokens that the answer may still have."""
        document, tokens = self._incoming.document, self._tokens
        most = document.get("max_completion_tokens") or document.get("max_tokens")
        if most is None and self._incoming.api == "completions":
            most = 16  # the API's own default
        if most is None:
            most = await self._longest(upstream) - len(tokens.prompt_ids)
        left = most - len(tokens.output_ids) if type(most) is int else 0
        if left <= 0:
            raise cannot("there is nothing left to generate")
        return left

    async def _longest(self, upstream: Upstream) -> int:
        head = upstream.head(b"GET", upstream.address.path + "/models") + b"\r\n"
        async with ask_server(upstream, head) as connection:
            _, document = await read_json(connection, upstream)
        for card in document.get("data") or ():
            if isinstance(card, dict) and card.get("id") == self._model:
                length = card.get("max_model_len")
                if type(length) is int:
                    return length
        raise cannot("it does not say how long the model's context is")

    async def _post(self, upstream: Upstream, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with ask_server(upstream, post(upstream, path, body)) as connection:
            return (await read_json(connection, upstream))[1]

    def _request(self, upstream: Upstream, left: int) -> bytes:
        asked, tokens = self._incoming.document, self._tokens
        body = {name: asked[name] for name in CARRIED if asked.get(name) is not None} | {
            "model": self._model,
            "prompt": tokens.prompt_ids + tokens.output_ids,
            "max_tokens": left,
            "stream": True,
            "return_token_ids": True,
        }
        return post(upstream, upstream.address.path + API_PATHS["completions"], body)

    def _shaped(self, document: dict[str, Any]) -> bytes:
        """A completion's event as one of the stream that is carried on."""
        choices = document.get("choices")
        if not isinstance(choices, list) or len(choices) != 1:
            return b""
        text, finish = choices[0].get("text"), choices[0].get("finish_reason")
        if not text and finish is None:
            return b""
        given: dict[str, Any] = {"delta": {"content": text} if text else {}}
        if self._incoming.api == "completions":
            given = {"text": text or ""}
        return self._event([{"index": 0, **given, "logprobs": None, "finish_reason": finish}])

    def ending(self) -> bytes:
        """The usage where it is wanted, and the end."""
        done = b"data: [DONE]\n\n"
        if not self._incoming.wants_usage:
            return done
        prompt, output = len(self._tokens.prompt_ids), len(self._tokens.output_ids)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
        }
        return self._event([], usage=usage) + done

    def _event(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        left_out = ("choices", "usage", "prompt_token_ids")
        head = {k: v for k, v in self._tokens.first.items() if k not in left_out}
        return b"data: " + orjson.dumps({**head, "choices": choices, **more}) + b"\n\n"


def post(upstream: Upstream, path: str, body: dict[str, Any]) -> bytes:
    """A request of the gateway's own."""
    data = orjson.dumps(body)
    length = b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data)
    return upstream.head(b"POST", path) + length + data


def cannot(why: str) -> Rejected:
    """The fault of nobody: this stream is not one that can be carried on."""
    return Rejected(422, why, None, None)


async def carried(carry: CarryOn, upstream: Upstream, tokens: int) -> AsyncGenerator[bytes, None]:
    """The rest of a stream from this server, counted as an attempt at it. Raises UpstreamFault."""
    with upstream.attempt(tokens):
        try:
            async for event in carry.events(upstream):
                yield event
        except TimeoutError:
            raise UpstreamFault("it took too long to take over") from None
