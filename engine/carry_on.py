"""Carry a generation on when its engine dies, on another engine of the same model.

Prompt plus the tokens generated so far is the whole state of a generation, so another
engine with the same weights can continue it: nothing is lost and nothing is repeated.
NVIDIA Dynamo calls the same idea request migration.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from engine.base import Delta, Engine, EngineDead, GenerateRequest, Resume
from engine.supervise import SupervisedEngine


@runtime_checkable
class Particular(Protocol):
    """What an engine also is that cannot go on with every output."""

    def can_carry_on(self, request: GenerateRequest) -> bool:
        """Whether an engine of this kind can go on with an output that has begun."""


NextEngine = Callable[[Engine], Awaitable[Engine | None]]


@dataclass(slots=True)
class Choice:
    """What one choice has yielded so far."""

    token_ids: list[int] = field(default_factory=list)
    text_sent: int = 0
    finished: bool = False


async def generate(
    engine: Engine, request: GenerateRequest, next_engine: NextEngine
) -> AsyncGenerator[Delta, None]:
    """Yield the deltas of ``request``, moving on when an engine dies.

    Args:
        engine: where to begin.
        request: what to generate.
        next_engine: asked after each death with the dead engine; answers one that serves
            the same model now, or None when there is none.

    Raises: what ``Engine.generate`` raises; EngineDead once no engine is left.
    """
    choices = [Choice() for _ in range(request.sampling.n)]
    running: Engine | None = None
    source: AsyncGenerator[Delta, None] | None = None
    try:
        while True:
            try:
                if source is None:
                    running = engine.running() if isinstance(engine, SupervisedEngine) else engine
                    source = running.generate(request)
                async for delta in source:
                    choice = choices[delta.index]
                    choice.token_ids += delta.token_ids
                    choice.text_sent += len(delta.text)
                    if delta.finish_reason is not None:
                        choice.finished = True
                    yield delta
                return
            except EngineDead as error:
                if running is not None and isinstance(engine, SupervisedEngine):
                    engine.note_death(running, error)
                stuck = _has_begun(choices) and not _can_carry_on(running, request)
                # Waiting for an engine that cannot go on either would only delay the error.
                successor = None if stuck else await next_engine(engine)
                if successor is None:
                    raise
            if source is not None:
                await source.aclose()
            engine, running = successor, None
            source = _resume(engine, request, choices)
    finally:
        if source is not None:
            await source.aclose()


async def _resume(
    engine: Engine, request: GenerateRequest, choices: list[Choice]
) -> AsyncGenerator[Delta, None]:
    if not _has_begun(choices):
        source = engine.generate(request)
        try:
            async for delta in source:
                yield delta
        finally:
            await source.aclose()
        return
    # One after the other: more than one open choice at a death is rare, and each stays exact.
    for index, choice in enumerate(choices):
        if choice.finished:
            continue
        part = engine.generate(_continuation(request, choice, index))
        try:
            async for delta in part:
                yield delta
        finally:
            await part.aclose()


def _can_carry_on(engine: object, request: GenerateRequest) -> bool:
    return not isinstance(engine, Particular) or engine.can_carry_on(request)


def _has_begun(choices: list[Choice]) -> bool:
    return any(choice.token_ids or choice.finished for choice in choices)


def _continuation(request: GenerateRequest, choice: Choice, index: int) -> GenerateRequest:
    return replace(
        request,
        request_id=f"{request.request_id}-c{index}",
        sampling=replace(request.sampling, n=1, prompt_logprobs=None),
        resume=Resume(tuple(choice.token_ids), choice.text_sent, index),
    )
