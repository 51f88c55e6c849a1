"""Who asks a model, and what they are to be told about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.control.gate import Used, Work
from gateway.control.rights import Principal
from gateway.http.exchange import Exchange
from gateway.protocol.anthropic_errors import speaks_anthropic
from gateway.routing.ask import Ask

if TYPE_CHECKING:
    from gateway.control.pool import RemoteRoute, Route


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, and what is to be told about it.

    Attributes:
        started: ``time.perf_counter()`` at arrival.
        details: access-log fields, filled in.
        marks: response headers, filled in.
        priority: of the generation; larger numbers run later.
        deadline: ``time.perf_counter()`` after which nobody wants the answer, or None.
        anthropic: whoever asks speaks Anthropic's protocol.
        ask: what routing has decided, or None where it had nothing to decide.
    """

    principal: Principal
    started: float
    details: dict[str, Any]
    marks: list[tuple[bytes, bytes]]
    priority: int = 0
    deadline: float | None = None
    anthropic: bool = False
    ask: Ask | None = None

    @classmethod
    def of(cls, exchange: Exchange) -> Caller:
        """Whoever sent this request; log fields and headers become the exchange's own."""
        return cls(
            exchange.principal,
            exchange.started,
            exchange.details,
            exchange.marks,
            exchange.priority,
            exchange.deadline,
            speaks_anthropic(exchange.path),
            exchange.ask,
        )

    def work(
        self,
        request_id: str,
        route: Route | RemoteRoute,
        *,
        prompt_tokens: int,
        max_tokens: int,
        is_capped: bool,
        choices: int,
    ) -> Work:
        """What this caller asks of ``route``; the figures are as in ``Work``."""
        return Work(
            request_id=request_id,
            principal=self.principal,
            model=route.asked,
            route=route,
            prompt_tokens=prompt_tokens,
            max_tokens=max_tokens,
            is_capped=is_capped,
            choices=choices,
            priority=self.priority,
            deadline=self.deadline,
            used=Used(),
            marks=self.marks,
            anthropic=self.anthropic,
        )
