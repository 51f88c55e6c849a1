"""A hook for the tests: what it does is said by the request."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from gateway.hooks import About, AnswerView, Channel, Hook, Refused, RequestView, TextRewriter


class Probe(Hook):
    """Notes every answer in a file."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)

    async def before(self, request: RequestView, about: About) -> None:
        text = str(request.messages) + str(request.prompts)
        if "forbidden" in text:
            raise Refused("That is not talked about here.", status=403, code="not_here")
        if "crash" in text:
            raise RuntimeError("a secret of the hook")
        if "slow" in text:
            await asyncio.Event().wait()
        if "spoil" in text:
            request.messages = [{"role": "nobody"}]
        if "shorten" in text:
            request.max_tokens = 4
            if about.kind == "chat":
                request.messages[-1]["content"] = "x"
            else:
                request.prompts = ["x" for _ in request.prompts]

    def rewriter(self, about: About, channel: Channel) -> TextRewriter | None:
        after = {"trips": 20, "trips-late": 400}.get(about.model or "")
        return None if after is None else Tripping(after)

    async def after(self, answer: AnswerView, about: About) -> None:
        line = {
            "request_id": about.request_id,
            "texts": answer.texts,
            "reasons": answer.finish_reasons,
            "tokens": [answer.prompt_tokens, answer.completion_tokens],
        }
        with self._file.open("a") as file:
            file.write(json.dumps(line) + "\n")


class Tripping:
    """Fails in the middle of a text."""

    def __init__(self, after: int) -> None:
        self._after = after
        self._seen = 0

    def feed(self, text: str) -> str:
        self._seen += len(text)
        if self._seen > self._after:
            raise RuntimeError("a secret of the hook")
        return text

    def finish(self) -> str:
        return ""
