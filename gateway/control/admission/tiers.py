"""OpenAI's ``service_tier`` as the class of a request.

``flex`` waits longest and ``priority`` least, as there. What a key may have at most holds here
too, without complaint: the answer says which tier it was.
"""

from __future__ import annotations

from typing import Any

from gateway.control.admission.policy import class_of, lower_of, priority_of
from gateway.control.admission.wishes import PRIORITY
from gateway.control.rights import PriorityClass
from gateway.http.exchange import Exchange

BY_TIER: dict[str, PriorityClass] = {
    "default": "default",
    "flex": "batch",
    "priority": "interactive",
    "fast": "interactive",
}
# By the index of the class; ``fast`` is another name of ``priority`` in OpenAI's answers too.
TIERS = ("priority", "default", "flex")


def take_tier(exchange: Exchange, asked: Any) -> None:
    """Set the exchange's priority by the tier that its body asks for.

    The header says more exactly what is wanted, so it comes first; work of a batch has its class.
    """
    name = BY_TIER.get(asked) if isinstance(asked, str) else None
    if name is None or PRIORITY in exchange.headers or exchange.settings is None:
        return
    name = lower_of(name, exchange.principal.rights.highest_class)
    exchange.priority = priority_of(name)
    if name != "default":
        exchange.details["class"] = name


def served_tier(priority: int) -> str:
    """The tier of a request with this priority, in OpenAI's words."""
    return TIERS[class_of(priority)]
