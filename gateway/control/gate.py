"""The gate that work for a model passes: first the caller's own limits, then room in the engine.

    async with state.gate.enter(work):
        ... generate ...

Every API that makes an engine work goes through here, whatever its protocol.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from gateway.control.rights import Principal

if TYPE_CHECKING:
    from gateway.control.fleet import RemoteRoute, Route


@dataclass(slots=True)
class Used:
    """What the engine did in the end; also true when it was cancelled or failed.

    Attributes:
        prompt_tokens: 0 when no token was ever made.
        cached_tokens: of these, found in the prefix cache.
        completion_tokens: of all choices.
        admission_s: seconds that it waited in the gateway for room in the engine.
        finish_reasons: of the choices that ended, in the order of their ends.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    admission_s: float = 0.0
    finish_reasons: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Work:
    """What a request asks of a model.

    Attributes:
        model: the model that was asked for, by its first name.
        route: who is going to answer.
        prompt_tokens: of all its prompts together.
        max_tokens: most output tokens of one choice.
        is_capped: the caller set ``max_tokens``; otherwise it is what the context leaves.
        choices: of all its prompts together; 0 for embeddings.
        priority: of the engine's queue; larger numbers run later. Below 0 is class interactive,
            above 0 class batch; admission makes it what the engine is to go by.
        deadline: ``time.perf_counter()`` after which nobody wants the answer, or None.
        used: filled in before the gate is left.
        marks: response headers, for guards to fill in before the first byte is sent.
        anthropic: the caller speaks Anthropic's protocol.
    """

    request_id: str
    principal: Principal
    model: str
    route: Route | RemoteRoute
    prompt_tokens: int
    max_tokens: int
    is_capped: bool
    choices: int
    priority: int
    deadline: float | None
    used: Used
    marks: list[tuple[bytes, bytes]] = field(default_factory=list)
    anthropic: bool = False


class Guard(Protocol):
    """Something that work has to hold while it runs."""

    def hold(self, work: Work) -> AbstractAsyncContextManager[None]:
        """Hold it; raises what the table of errors knows when it cannot be had. Leaving gives
        it back, whatever happened."""


class Gate:
    """Guards in the order in which they are asked."""

    def __init__(self, guards: tuple[Guard, ...] = ()) -> None:
        self.guards = guards

    def enter(self, work: Work) -> Entered:
        """Hold everything that ``work`` needs; raises what the guards raise."""
        return Entered(self.guards, work)


class Entered:
    """What work holds of each guard; the last one is left first, with what the ones after it
    have raised. An ``AsyncExitStack`` would do, at several times the cost."""

    __slots__ = ("_guards", "_held", "_work")

    def __init__(self, guards: tuple[Guard, ...], work: Work) -> None:
        self._guards = guards
        self._work = work
        self._held: list[AbstractAsyncContextManager[None]] = []

    async def __aenter__(self) -> None:
        try:
            for guard in self._guards:
                hold = guard.hold(self._work)
                await hold.__aenter__()
                self._held.append(hold)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        last = error
        while self._held:
            try:
                await self._held.pop().__aexit__(None if last is None else type(last), last, trace)
            except BaseException as found:
                last, trace = found, found.__traceback__
        if last is not error and last is not None:
            raise last
