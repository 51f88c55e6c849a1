"""Asks an engine as a client would, through the same prompt path as requests."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from engine.base import Engine, EngineStartError, GenerateRequest, RequestRejected
from engine.models.evaluate import EvalItem, EvalTable, Messages, Tools, evaluate
from gateway.chat.prompt import PromptBuilder
from gateway.errors import InvalidRequest
from gateway.protocol.chat_request import read_chat_request

MAX_ANSWER_TOKENS = 160
CONCURRENCY = 8


class Asker:
    """Greedy answers of one started engine."""

    def __init__(self, engine: Engine, max_tokens: int = MAX_ANSWER_TOKENS) -> None:
        self._engine = engine
        self._max_tokens = max_tokens
        self._prompts = PromptBuilder(engine.info)
        self._numbers = itertools.count()

    def close(self) -> None:
        """End the threads that render prompts."""
        self._prompts.close()

    async def ask(self, messages: Messages, tools: Tools) -> str:
        """The raw answer, tool-call tags included.

        A model without a chat template completes a single message as it is.

        Raises EngineStartError for a question that this model cannot be asked.
        """
        if self._prompts.template is None and (len(messages) != 1 or tools):
            raise EngineStartError(
                f"{self._engine.info.source} has no chat template: give its tasks as 'prompt', "
                "which it completes"
            )
        body: dict[str, Any] = {
            "messages": as_request(messages),
            "temperature": 0,
            "max_tokens": self._max_tokens,
        }
        if tools:
            body["tools"] = tools
        try:
            request = await self._request(body)
            async with aclosing(self._engine.generate(request)) as deltas:
                return "".join([delta.text async for delta in deltas])
        except (InvalidRequest, RequestRejected) as error:
            raise EngineStartError(
                f"a task cannot be asked ({error}): {str(messages[-1].get('content'))[:80]!r}"
            ) from error

    async def _request(self, body: dict[str, Any]) -> GenerateRequest:
        number = f"eval-{next(self._numbers)}"
        if self._prompts.template is None:
            return self._completion(number, body["messages"][0]["content"])
        prompt = await self._prompts.build(read_chat_request(body))
        return GenerateRequest(number, prompt.ids, prompt.sampling)

    def _completion(self, number: str, text: str) -> GenerateRequest:
        from engine.base import SamplingParams

        info = self._engine.info
        ids = info.tokenizer.encode(text).ids
        room = info.max_model_len - len(ids)
        if not ids or room < 1:
            raise InvalidRequest(f"it has {len(ids)} tokens, the model takes {info.max_model_len}")
        sampling = SamplingParams(max_tokens=min(self._max_tokens, room), temperature=0)
        return GenerateRequest(number, ids, sampling)


async def examine(
    engine: Engine,
    items: list[EvalItem],
    report: Callable[[float], None] = lambda _: None,
    max_tokens: int = MAX_ANSWER_TOKENS,
) -> EvalTable:
    """The scores of an engine that is started here and stopped again."""
    await engine.start()
    try:
        asker = Asker(engine, max_tokens)
        done = itertools.count(1)

        async def ask(messages: Messages, tools: Tools) -> str:
            answer = await asker.ask(messages, tools)
            report(next(done) / len(items))
            return answer

        try:
            return await evaluate(ask, items, CONCURRENCY)
        finally:
            asker.close()
    finally:
        await engine.stop(0)


def as_request(messages: Messages) -> Messages:
    """The exam's messages as a client sends them: call ids, and arguments as JSON text."""
    sent = []
    for position, message in enumerate(messages):
        copy = dict(message)
        if "tool_calls" in message:
            copy["tool_calls"] = [
                {
                    "id": call.get("id") or f"call_{position}_{number}",
                    "type": "function",
                    "function": {
                        "name": call["function"]["name"],
                        "arguments": as_text(call["function"]["arguments"]),
                    },
                }
                for number, call in enumerate(message["tool_calls"])
            ]
        if message["role"] == "tool":
            copy.setdefault("tool_call_id", f"call_{position - 1}_0")
        sent.append(copy)
    return sent


def as_text(arguments: Any) -> str:
    """Arguments of a tool call as a client writes them."""
    if isinstance(arguments, str):
        return arguments
    return json.dumps(arguments, ensure_ascii=False)
