"""One turn of a conversation, from a checked request to what the model makes of it.

    async with chat_turn(state, fleet, request, Caller.of(exchange)) as turn:
        async for part in turn: ...

Every API that answers with a chat model goes through here: chat completions, messages,
responses, batches.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from engine.base import (
    Delta,
    EngineDead,
    GenerateRequest,
    ModelInfo,
    RequestRejected,
)
from gateway import __version__
from gateway.chat.adapters import adapter_of
from gateway.chat.caller import Caller
from gateway.chat.output import ChoiceReader
from gateway.chat.parsing import ContentDelta, Event
from gateway.chat.prompt import Prompt
from gateway.chat.tokens import TokenTexts
from gateway.control.auth import salt_for
from gateway.control.fleet import Fleet, Route
from gateway.control.gate import Work
from gateway.errors import GenerationAborted, InvalidRequest
from gateway.hooks.answer import HookedAnswer
from gateway.protocol.chat_request import ChatRequest
from gateway.routing.marks import tell_target
from gateway.state import GatewayState
from gateway.telemetry.generation import GenerationMeter

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(slots=True)
class TurnDelta:
    """New output of one choice.

    Attributes:
        index: which of the ``n`` choices.
        events: what it adds to the answer; may be empty.
        delta: the engine's own delta: logprobs, token ids, raw text.
        finish_reason: on the last one of the choice.
        stop_reason: the stop string or token id of the request that ended it.
    """

    index: int
    events: list[Event]
    delta: Delta
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


class ChatTurn:
    """A running generation. Iterate it once, to the end or not.

    Attributes:
        id: of the answer. created: Unix seconds. model: id of the model that answers.
        degraded: the fallback answers for another model.
        texts: spells single tokens.
        first: the engine's first delta, which has been waited for already.
        rest: the engine's further deltas.
        readers: per choice what reads its text, or None where all that follows is content.
        hooked: what the answer goes through after that, or None.
    """

    def __init__(
        self,
        route: Route,
        request: ChatRequest,
        prompt: Prompt,
        meter: GenerationMeter,
        answer_id: str,
        first: Delta,
        rest: AsyncGenerator[Delta, None],
        hooked: HookedAnswer | None = None,
        adapter: str | None = None,
    ) -> None:
        self.id = answer_id
        self.created = int(time.time())
        self.info: ModelInfo = route.info
        self.model = adapter or self.info.id
        self.degraded = route.degraded
        self.texts: TokenTexts = route.prompts.texts
        self.request = request
        self.prompt = prompt
        self.meter = meter
        self.first = first
        self.rest = rest
        self.hooked = hooked
        plan = prompt.output
        self.readers: list[ChoiceReader | None] = [
            None if plan.is_plain else ChoiceReader(plan) for _ in range(request.n)
        ]
        self._all_readers = [reader for reader in self.readers if reader is not None]
        self._unfinished = request.n

    @property
    def fingerprint(self) -> str:
        """Changes with whatever may change the answer to the same request and seed."""
        return fingerprint(self.info)

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of all choices so far that were thinking."""
        return sum(reader.reasoning_tokens for reader in self._all_readers)

    @property
    def finished(self) -> bool:
        """Whether every choice has ended."""
        return not self._unfinished

    def read(self, delta: Delta) -> TurnDelta:
        """What the engine's next delta means. Raises GenerationAborted, and HookFailed."""
        part = self._read(delta)
        if self.hooked is not None:
            part.events = self.hooked.events(part.index, part.events, part.finish_reason)
        return part

    def _read(self, delta: Delta) -> TurnDelta:
        finish = delta.finish_reason
        if finish == "abort":
            raise aborted()
        self.meter.see(delta)
        index = delta.index
        reader = self.readers[index]
        if finish is not None:
            self._unfinished -= 1
        if reader is None:
            events: list[Event] = [ContentDelta(delta.text)] if delta.text else []
            return TurnDelta(index, events, delta, finish, delta.stop_reason)
        events = reader.read(delta)
        if finish is None:
            if reader.done:
                self.readers[index] = None
            return TurnDelta(index, events, delta)
        called = reader.calls and finish == "stop" and not self.prompt.output.named
        return TurnDelta(
            index, events, delta, "tool_calls" if called else finish, delta.stop_reason
        )

    async def __aiter__(self) -> AsyncIterator[TurnDelta]:
        yield self.read(self.first)
        async for delta in self.rest:
            yield self.read(delta)


@asynccontextmanager
async def chat_turn(
    state: GatewayState,
    fleet: Fleet,
    request: ChatRequest,
    caller: Caller,
    *,
    id_prefix: str = "chatcmpl-",
) -> AsyncIterator[ChatTurn]:
    """Route, render, start generating and wait for the first delta.

    So everything that deserves a status is raised on entering: what routing, ``PromptBuilder``
    and ``Engine.generate`` raise. When an engine dies unheard, another one is chosen. Leaving
    aborts what still runs, waits until the engine has let go of it, and closes the meter.
    """
    answer_id = f"{id_prefix}{os.urandom(12).hex()}"
    hooked = None
    if state.hooks is not None:
        request, hooked = await state.hooks.chat(request, caller)
    while True:
        route = fleet.route(request.model, caller.principal, ask=caller.ask)
        adapter = adapter_of(route, request.model)
        tell_route(state, route, request.stream, caller)
        state.admission.refuse_early(route, caller.priority)
        try:
            prompt = await route.prompts.build(request, state.media)
        except EngineDead:
            # While it prepared images. The fleet knows of the death now.
            continue
        meter = GenerationMeter(
            state.lifecycle.metrics.models[route.info.id],
            caller.started,
            len(prompt.ids),
            request.n,
        )
        work = caller.work(
            answer_id,
            route,
            prompt_tokens=len(prompt.ids),
            max_tokens=prompt.sampling.max_tokens,
            is_capped=request.max_tokens is not None,
            choices=request.n,
        )
        turn: ChatTurn | None = None
        route.take_on(work)  # from here on, so that what waits for a replica counts there
        try:
            async with state.gate.enter(work):
                deltas = _generate(state, route, work, request, prompt, caller, adapter)
                try:
                    first = await anext(deltas, None)
                    if first is None or first.finish_reason == "abort":
                        raise aborted()
                    turn = ChatTurn(
                        route, request, prompt, meter, answer_id, first, deltas, hooked, adapter
                    )
                    yield turn
                    return
                finally:
                    # Closing waits until the engine has let go of the request, in every phase.
                    await deltas.aclose()
                    meter.close(completed=turn is not None and turn.finished)
                    meter.settle(work.used)
                    caller.details.update(meter.details())
                    caller.details["admission_ms"] = round(work.used.admission_s * 1000, 2)
                    if turn is not None:
                        caller.details["reasoning_tokens"] = turn.reasoning_tokens
                        if hooked is not None:
                            hooked.close(turn.model, meter.prompt_tokens, meter.completion_tokens)
        except EngineDead:
            # The fleet knows of the death now, so this ends with the last engine.
            if turn is not None:
                raise
        except RequestRejected as error:
            raise in_the_callers_words(error, prompt) from None
        finally:
            route.let_go(work)


def tell_route(state: GatewayState, route: Route, stream: bool, caller: Caller) -> None:
    """Say who answers; the last attempt counts."""
    tell_target(caller.marks, caller.details, route, caller.ask)
    caller.details["stream"] = stream
    if route.degraded:
        caller.details["degraded"] = route.asked
        state.lifecycle.metrics.degraded[route.asked] += 1


def _generate(
    state: GatewayState,
    route: Route,
    work: Work,
    request: ChatRequest,
    prompt: Prompt,
    caller: Caller,
    adapter: str | None,
) -> AsyncGenerator[Delta, None]:
    asked = GenerateRequest(
        request_id=work.request_id,
        prompt_ids=prompt.ids,
        images=prompt.images,
        sampling=prompt.sampling,
        cache_salt=salt_for(caller.principal, request.cache_salt),
        priority=work.priority,
        lora=adapter,
    )

    return route.generate(asked, state.lifecycle.metrics.note_carry_on)


def in_the_callers_words(error: RequestRejected, prompt: Prompt) -> Exception:
    """A refusal by the engine that names the caller's own field.

    Tool choices and constraints behind reasoning reach the engine as grammars.
    """
    field = prompt.constrained_by
    if field is None or error.param not in ("structured_outputs", "response_format"):
        return error
    message = str(error).replace(f"Invalid '{error.param}'", f"Invalid '{field}'", 1)
    return InvalidRequest(message.replace("in 'grammar': ", "", 1), param=field, code=error.code)


def fingerprint(info: ModelInfo) -> str:
    """Changes with whatever may change the answer to the same request and seed."""
    parts = (__version__, info.source, info.engine, info.quantization, info.device, info.dtype)
    return "fp_" + hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


def aborted() -> GenerationAborted:
    """The error for a generation that the engine ended before its time."""
    return GenerationAborted("The server is shutting down; the answer is not complete.")
