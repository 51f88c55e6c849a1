"""A refusal, as the caller reads it."""

from __future__ import annotations

from gateway.control.limits.book import Refusal
from gateway.control.limits.windows import HELD, NANO
from gateway.errors import RateLimited

# The SDKs obey Retry-After up to a minute; beyond, they would come back within seconds.
LONGEST_RETRY_MS = 60_000


def rate_limited(refusal: Refusal) -> RateLimited:
    """The error for a request that does not fit a limit."""
    counter = refusal.counter
    window, (scope, name, _) = counter.window, counter.key
    wait = refusal.wait_ms
    budget = window.unit == "usd"
    told = (
        f"Rate limit reached for {scope} '{name}' on {window.label}: "
        f"Limit {shown(refusal.limit, budget)}, Used {shown(refusal.used, budget)}, "
        f"Requested {shown(refusal.cost, budget)}."
    )
    if budget:
        told = told.replace("Rate limit", "Budget", 1)
    if wait is None:
        told += " The request is larger than the whole limit"
        told += "." if budget else "; send less or ask for fewer max_tokens."
    elif window.width_ms == HELD:
        told += " Please wait for one of your running requests to finish."
    else:
        told += f" Please try again in {duration(wait)}."
    return RateLimited(
        told,
        kind="insufficient_quota" if budget else quota(window.unit),
        code="insufficient_quota" if budget else "rate_limit_exceeded",
        retry=wait is not None and not budget and wait <= LONGEST_RETRY_MS,
        retry_after_ms=wait,
    )


def quota(unit: str) -> str:
    """Which of OpenAI's two kinds of limits a unit belongs to."""
    return "tokens" if unit == "tokens" else "requests"


def shown(amount: int, money: bool) -> str:
    """An amount with its unit."""
    return f"${amount / NANO:.6f}".rstrip("0").rstrip(".") if money else str(amount)


def duration(ms: int) -> str:
    """A duration as OpenAI writes it: ``120ms``, ``1.5s``, ``6m0s``, ``2h3m4s``. Never less."""
    if ms < 1000:
        return f"{ms}ms"
    if ms < 60_000:
        return f"{-(-ms // 10) / 100:g}s"
    seconds = -(-ms // 1000)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return (f"{hours}h" if hours else "") + f"{minutes}m{seconds % 60}s"
