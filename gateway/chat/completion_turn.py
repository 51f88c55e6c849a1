"""One completion call, from a checked request to the engine's deltas.

    async with completion_turn(state, fleet, request, caller) as turn:
        async for delta in turn: ...

Every prompt is a request of its own to the engine; their choices are numbered through, prompt
by prompt, as OpenAI numbers them.
"""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from engine.base import Delta, EngineDead, GenerateRequest, RequestRejected
from gateway.chat.adapters import adapter_of
from gateway.chat.caller import Caller
from gateway.chat.prompt_runs import run_prompts
from gateway.chat.raw_prompt import RawPrompt, RawPrompts, in_thread, raw_prompts
from gateway.chat.tokens import TokenTexts
from gateway.chat.turn import aborted, fingerprint, tell_route
from gateway.control.auth import salt_for
from gateway.control.fleet import Fleet, Route
from gateway.control.gate import Work
from gateway.errors import InvalidRequest
from gateway.hooks.answer import HookedAnswer
from gateway.protocol.completion_request import CompletionRequest
from gateway.state import GatewayState
from gateway.telemetry.generation import GenerationMeter

PromptDeltas = AsyncGenerator[tuple[int, Delta], None]


class CompletionTurn:
    """A running completion. Iterate it once, to the end or not; ``Delta.index`` is
    ``prompt * n + choice``.

    Attributes:
        id: of the answer. created: Unix seconds. model: id of the model that answers.
        degraded: the fallback answers for another model.
        adapter: that the engine is to apply, or None.
        prompts: in the order of the request.
        raw: the model's tokeniser. texts: spells single tokens.
    """

    def __init__(
        self,
        route: Route,
        request: CompletionRequest,
        raw: RawPrompts,
        prompts: list[RawPrompt],
        meter: GenerationMeter,
        answer_id: str,
        hooked: HookedAnswer | None = None,
        adapter: str | None = None,
    ) -> None:
        self.id = answer_id
        self.created = int(time.time())
        self.info = route.info
        self.adapter = adapter
        self.model = adapter or self.info.id
        self.fingerprint = fingerprint(self.info)
        self.degraded = route.degraded
        self.texts: TokenTexts = route.prompts.texts
        self.request = request
        self.raw = raw
        self.prompts = prompts
        self.meter = meter
        self._hooked = hooked
        self._heard: set[int] = set()
        self._unfinished = request.choices
        self._first: tuple[int, Delta] | None = None
        self._rest: PromptDeltas | None = None

    @property
    def finished(self) -> bool:
        """Whether every choice has ended."""
        return not self._unfinished

    async def begin(self, deltas: PromptDeltas) -> None:
        """Wait for the first delta. Raises what the engine raises, and GenerationAborted."""
        self._first, self._rest = await anext(deltas, None), deltas
        if self._first is None or self._first[1].finish_reason == "abort":
            raise aborted()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        if self._first is None or self._rest is None:
            raise RuntimeError("the turn has not begun")
        yield self._read(*self._first)
        async for position, delta in self._rest:
            yield self._read(position, delta)

    def _read(self, position: int, delta: Delta) -> Delta:
        if delta.finish_reason == "abort":
            raise aborted()
        meter = self.meter
        delta.index += position * self.request.n
        if position not in self._heard:
            # The meter itself takes the cached tokens of the first delta of all.
            if self._heard:
                meter.cached_tokens += delta.cached_tokens
            self._heard.add(position)
        meter.see(delta)
        if delta.finish_reason is not None:
            self._unfinished -= 1
        if self._hooked is not None:
            self._hooked.rewrite(delta)
        return delta


@asynccontextmanager
async def completion_turn(
    state: GatewayState, fleet: Fleet, request: CompletionRequest, caller: Caller
) -> AsyncIterator[CompletionTurn]:
    """Route, tokenise, start generating and wait for the first delta.

    So everything that deserves a status is raised on entering: what routing, ``RawPrompts``
    and ``Engine.generate`` raise. When an engine dies unheard, another one is chosen. Leaving
    aborts every prompt that still runs, waits for that, and closes the meter.
    """
    answer_id = f"cmpl-{os.urandom(12).hex()}"
    hooked = None
    if state.hooks is not None:
        request, hooked = await state.hooks.completion(request, caller)
    while True:
        route = fleet.route(request.model, caller.principal, ask=caller.ask)
        adapter = adapter_of(route, request.model)
        tell_route(state, route, request.stream, caller)
        if len(request.prompts) > 1:
            caller.details["prompts"] = len(request.prompts)
        state.admission.refuse_early(route, caller.priority)
        raw = await raw_prompts(route.prompts)
        prompts = await in_thread(raw.build, request)
        meter = GenerationMeter(
            state.lifecycle.metrics.models[route.info.id],
            caller.started,
            sum(len(prompt.ids) for prompt in prompts),
            request.choices,
        )
        turn = CompletionTurn(route, request, raw, prompts, meter, answer_id, hooked, adapter)
        work = caller.work(
            answer_id,
            route,
            prompt_tokens=meter.prompt_tokens,
            max_tokens=max(prompt.sampling.max_tokens for prompt in prompts),
            is_capped=request.max_tokens is not None,
            choices=request.choices,
        )
        begun = False
        route.take_on(work)  # from here on, so that what waits for a replica counts there
        try:
            async with state.gate.enter(work):
                deltas = _generate(state, route, work, turn, caller)
                try:
                    await turn.begin(deltas)
                    begun = True
                    yield turn
                    return
                finally:
                    # Closing waits until the engine has let go of every prompt, in every phase.
                    await deltas.aclose()
                    meter.close(completed=turn.finished)
                    meter.settle(work.used)
                    caller.details.update(meter.details())
                    caller.details["admission_ms"] = round(work.used.admission_s * 1000, 2)
                    if begun and hooked is not None:
                        hooked.close(turn.model, meter.prompt_tokens, meter.completion_tokens)
        except EngineDead:
            # The fleet knows of the death now, so this ends with the last engine.
            if begun:
                raise
        except RequestRejected as error:
            raise in_the_callers_words(error, request) from None
        finally:
            route.let_go(work)


def _generate(
    state: GatewayState, route: Route, work: Work, turn: CompletionTurn, caller: Caller
) -> PromptDeltas:
    request = turn.request
    several = len(turn.prompts) > 1

    def start(position: int) -> AsyncGenerator[Delta, None]:
        prompt = turn.prompts[position]
        asked = GenerateRequest(
            request_id=f"{turn.id}-{position}" if several else turn.id,
            prompt_ids=prompt.ids,
            sampling=prompt.sampling,
            cache_salt=salt_for(caller.principal, request.cache_salt),
            priority=work.priority,
            lora=turn.adapter,
        )
        freest = None if route.degraded or not several else route.pool.pick()
        chosen = route if freest is None else replace(route, replica=freest)
        return chosen.generate(asked, state.lifecycle.metrics.note_carry_on)

    # One call fills the engine's batch at most, never its waiting queue.
    seats = route.replica.engine.load().max_running * max(1, len(route.pool.replicas))
    return run_prompts(start, len(turn.prompts), max(1, seats // request.n))


def in_the_callers_words(error: RequestRejected, request: CompletionRequest) -> Exception:
    """A refusal of a constraint by the engine, named by the caller's own field."""
    field = request.structured_field
    if error.param == field or error.param not in ("structured_outputs", "response_format"):
        return error
    message = str(error).replace(f"'{error.param}'", f"'{field}'", 1)
    return InvalidRequest(message, param=field, code=error.code)
