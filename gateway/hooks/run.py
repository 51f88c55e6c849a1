"""Runs the hooks of a server around its requests."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import logging
from collections import Counter
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from prometheus_client.core import CounterMetricFamily, Metric

from gateway.chat.caller import Caller
from gateway.errors import HookFailed, InvalidRequest, NotPermitted
from gateway.hooks.answer import HookedAnswer
from gateway.hooks.api import About, AnswerView, Channel, Hook, Refused, RequestView, TextRewriter
from gateway.hooks.load import load_hooks
from gateway.hooks.view import checked
from gateway.protocol.chat_request import ChatRequest
from gateway.protocol.completion_request import CompletionRequest
from gateway.settings_telemetry import TelemetrySettings
from gateway.telemetry.logging import REQUEST_ID

log = logging.getLogger("gateway.hooks")

CHANNELS: tuple[Channel, ...] = ("content", "reasoning", "arguments")
# Answers that hooks are still looking at; further ones are not shown to them.
MOST_AFTER = 1000
OUTCOMES = ("refused", "failed", "not_shown")

Request = ChatRequest | CompletionRequest


class Hooks:
    """All hooks of a server, in order. Owned by its event loop."""

    def __init__(self, hooks: Sequence[tuple[str, Hook]], timeout_s: float) -> None:
        self._hooks = hooks
        self._timeout_s = timeout_s
        self._befores = overriding(hooks, "before")
        self._sees_answers = overriding(hooks, "after")
        self._rewrites = overriding(hooks, "rewriter")
        self._after: set[asyncio.Task[None]] = set()
        self._outcomes: Counter[tuple[str, str]] = Counter(
            {(name, outcome): 0 for name, _ in hooks for outcome in OUTCOMES}
        )

    @property
    def sees_requests(self) -> bool:
        """Whether any hook wants to see requests."""
        return bool(self._befores)

    async def chat(self, request: ChatRequest, caller: Caller) -> tuple[ChatRequest, HookedAnswer]:
        """The request as the model is to get it, and what its answer goes through.

        Raises InvalidRequest or NotPermitted for a refusal, and HookFailed.
        """
        about = about_of(request.model, request.stream, caller, "chat")
        answer = self.answer(about, request.n, spelled_by(request))
        if self.sees_requests:
            view = RequestView(
                copy.deepcopy(request.messages),
                [],
                request.max_tokens,
                tuple(map(MappingProxyType, copy.deepcopy(request.tools))),
                MappingProxyType(request.fields),
            )
            await self.before(view, about)
            request = replace(request, messages=view.messages, max_tokens=view.max_tokens)
        return request, answer

    async def completion(
        self, request: CompletionRequest, caller: Caller
    ) -> tuple[CompletionRequest, HookedAnswer]:
        """The same for a completion."""
        about = about_of(request.model, request.stream, caller, "completion")
        answer = self.answer(about, request.choices, spelled_by(request))
        if self.sees_requests:
            view = RequestView(
                [],
                copy.deepcopy(request.prompts),
                request.max_tokens,
                (),
                MappingProxyType(request.fields),
            )
            await self.before(view, about)
            request = replace(request, prompts=view.prompts, max_tokens=view.max_tokens)
        return request, answer

    def collect(self) -> Iterator[Metric]:
        """For /metrics."""
        found = CounterMetricFamily(
            "gateway_hook_interventions",
            "Requests that a hook refused or failed, and answers that it did not see.",
            labels=["hook", "outcome"],
        )
        for (name, outcome), count in self._outcomes.items():
            found.add_metric([name, outcome], count)
        yield found

    async def close(self) -> None:
        """Let hooks finish looking at answers; each has its own bound of time."""
        if self._after:
            await asyncio.wait(self._after)

    async def before(self, view: RequestView, about: About) -> None:
        """Have every hook see a request, and change its view.

        Raises InvalidRequest or NotPermitted for a refusal, and HookFailed.
        """
        sizes = len(view.messages), len(view.prompts)
        for name, hook in self._befores:
            try:
                await self._bounded(hook.before(view, about))
                checked(view, sizes)
            except Refused as refusal:
                self._outcomes[name, "refused"] += 1
                kind = NotPermitted if refusal.status == 403 else InvalidRequest
                raise kind(refusal.message, code=refusal.code) from None
            except Exception as error:
                raise self.failed(name, error) from None

    def answer(self, about: About, choices: int, spelled: Sequence[str]) -> HookedAnswer:
        """What an answer goes through. Texts that are rewritten must not get out another way:
        ``spelled`` are fields of the request that ask for them otherwise. Raises InvalidRequest.
        """
        rewriting = [
            (name, hook) for name, hook in self._rewrites if self._touches(name, hook, about)
        ]
        if rewriting and spelled:
            raise InvalidRequest(
                f"'{spelled[0]}' is not available: this server rewrites the text of answers.",
                param=spelled[0],
                code="unsupported_parameter",
            )

        def chain(channel: Channel) -> list[TextRewriter]:
            found = (self._rewriter(name, hook, about, channel) for name, hook in rewriting)
            return [rewriter for rewriter in found if rewriter is not None]

        def end(answer: AnswerView) -> None:
            for name, hook in self._sees_answers:
                self._show(name, hook, answer, about)

        seen = end if self._sees_answers else None
        return HookedAnswer(choices, chain, seen, rewrites=bool(rewriting))

    def _touches(self, name: str, hook: Hook, about: About) -> bool:
        return any(self._rewriter(name, hook, about, channel) for channel in CHANNELS)

    def _rewriter(
        self, name: str, hook: Hook, about: About, channel: Channel
    ) -> TextRewriter | None:
        try:
            found = hook.rewriter(about, channel)
        except Exception as error:
            raise self.failed(name, error) from None
        return None if found is None else Guarded(self, name, found)

    def _show(self, name: str, hook: Hook, answer: AnswerView, about: About) -> None:
        if len(self._after) >= MOST_AFTER:
            self._outcomes[name, "not_shown"] += 1
            return

        async def show() -> None:
            try:
                await self._bounded(hook.after(answer, about))
            except Exception as error:
                self.failed(name, error)

        task = asyncio.create_task(show())
        self._after.add(task)
        task.add_done_callback(self._after.discard)

    async def _bounded(self, work: Awaitable[None]) -> None:
        async with asyncio.timeout(self._timeout_s):
            await work

    def failed(self, name: str, error: Exception) -> HookFailed:
        """Note the failure; the caller learns nothing of it but that there was one."""
        self._outcomes[name, "failed"] += 1
        log.error("a hook failed", exc_info=error, extra={"fields": {"hook": name}})
        return HookFailed(f"hook {name} failed")


class Guarded:
    """A rewriter whose exceptions fail the request as every fault of a hook does."""

    __slots__ = ("_hooks", "_inner", "_name")

    def __init__(self, hooks: Hooks, name: str, inner: TextRewriter) -> None:
        self._hooks = hooks
        self._name = name
        self._inner = inner

    def feed(self, text: str) -> str:
        """What may be sent. Raises HookFailed."""
        with self._failing():
            return text_only(self._inner.feed(text))

    def finish(self) -> str:
        """The rest. Raises HookFailed."""
        with self._failing():
            return text_only(self._inner.finish())

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise self._hooks.failed(self._name, error) from None


def text_only(value: Any) -> str:
    """Whatever else a rewriter gives is its fault."""
    if not isinstance(value, str):
        raise TypeError("a rewriter has to return a string")
    return value


def overriding(hooks: Sequence[tuple[str, Hook]], method: str) -> list[tuple[str, Hook]]:
    """Those that have a method of their own for this."""
    idle = getattr(Hook, method)
    return [(name, hook) for name, hook in hooks if getattr(type(hook), method, None) is not idle]


def spelled_by(request: Request) -> list[str]:
    """Fields of a request that ask for what spells the answer's texts in another way."""
    fields = ("logprobs", "return_token_ids")
    return [name for name in fields if asks(getattr(request, name))]


def asks(value: Any) -> bool:
    """Whether a field asks for something; 0 log-probabilities are those of the token itself."""
    return value is not None and value is not False


def about_of(model: str | None, stream: bool, caller: Caller, kind: Any) -> About:
    """Whose request it is."""
    tenant = caller.principal.tenant
    return About(
        request_id=REQUEST_ID.get() or "",
        kind=kind,
        model=model,
        key=caller.principal.id,
        organisation=tenant.organisation,
        project=tenant.project,
        stream=stream,
    )


def new_hooks(settings: TelemetrySettings) -> Hooks | None:
    """The hooks that the settings name, or None for none. Raises ValueError."""
    if not settings.hooks:
        return None
    return Hooks(load_hooks(settings.hooks, settings.hook_options), settings.hook_timeout_s)
