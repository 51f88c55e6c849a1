"""What the headers of a request say about its class and its deadline.

    x-priority: interactive | default | batch
    x-request-timeout: 2.5

A class above what the key allows is lowered to that without complaint, so that a client can be
moved to another key without being changed.
"""

from __future__ import annotations

import math

from gateway.control.admission.policy import lower_of, priority_of
from gateway.control.rights import CLASSES, PriorityClass, Rights
from gateway.errors import InvalidRequest
from gateway.http.exchange import Exchange

PRIORITY = b"x-priority"
TIMEOUT = b"x-request-timeout"
LONGEST_TIMEOUT_S = 86_400.0
BY_NAME: dict[bytes, PriorityClass] = {name.encode(): name for name in CLASSES}


def read_wishes(exchange: Exchange) -> None:
    """Set the exchange's priority and deadline. Raises InvalidRequest."""
    headers, rights = exchange.headers, exchange.principal.rights
    asked = headers.get(PRIORITY)
    if asked is not None or rights.highest_class != "interactive":
        name = class_for(asked, rights)
        exchange.priority = priority_of(name)
        if name != "default":
            exchange.details["class"] = name
    timeout = headers.get(TIMEOUT)
    if timeout is not None:
        exchange.deadline = exchange.started + read_timeout(timeout)


def class_for(asked: bytes | None, rights: Rights) -> PriorityClass:
    """The class of a request that asks for this one."""
    name = BY_NAME.get((asked or b"default").strip().lower())
    if name is None:
        raise InvalidRequest(
            f"Invalid '{PRIORITY.decode()}' header: send one of {', '.join(CLASSES)}.",
            param=PRIORITY.decode(),
        )
    return lower_of(name, rights.highest_class)


def read_timeout(given: bytes) -> float:
    """Seconds in the header's value. Raises InvalidRequest."""
    try:
        seconds = float(given) if len(given) <= 32 else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= LONGEST_TIMEOUT_S:
        raise InvalidRequest(
            f"Invalid '{TIMEOUT.decode()}' header: send seconds above 0 and at most "
            f"{LONGEST_TIMEOUT_S:.0f}, such as 2.5.",
            param=TIMEOUT.decode(),
        )
    return seconds
