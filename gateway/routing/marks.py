"""Headers and log fields that say who answered, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.routing.ask import Ask

if TYPE_CHECKING:
    from gateway.control.pool import Route

MODEL_MARK = b"x-gateway-model"
DEGRADED_MARK = b"x-gateway-degraded"
TARGET_MARK = b"x-gateway-target"
ROUTE_MARK = b"x-gateway-route"
OWN = (MODEL_MARK, DEGRADED_MARK, TARGET_MARK, ROUTE_MARK)

Marks = list[tuple[bytes, bytes]]


def tell_target(
    marks: Marks, details: dict[str, Any], route: Route, ask: Ask | None = None
) -> None:
    """Say which engine of this process answers; the last attempt counts."""
    steps = [] if ask is None else [*ask.steps]
    if route.reason and (not steps or steps[-1] != route.reason):
        steps.append(route.reason)
    tell(marks, details, route.model_id, route.target, steps)
    if route.degraded:
        marks.append((DEGRADED_MARK, header(route.asked)))


def tell(marks: Marks, details: dict[str, Any], model: str, target: str, steps: list[str]) -> None:
    """Say which target of which model answers, and the steps that led there."""
    why = ", ".join(steps)
    marks[:] = [mark for mark in marks if mark[0] not in OWN]
    marks += [
        (MODEL_MARK, header(model)),
        (TARGET_MARK, header(target)),
        (ROUTE_MARK, header(why)),
    ]
    details.update(model=model, target=target, route_reason=why)


def header(text: str) -> bytes:
    """A header value; names of models may hold what headers may not."""
    return text.encode("utf-8") if text.isprintable() else repr(text).encode("ascii", "replace")
