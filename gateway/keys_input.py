"""What ``llm-gateway keys`` is told, as the documents that the admin API takes."""

from __future__ import annotations

import getpass
import json
import os
import re
from datetime import UTC, datetime
from typing import Any

from gateway.control.identity.audit import Actor
from gateway.errors import InvalidRequest

Json = dict[str, Any]

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_SPAN = re.compile(r"([0-9]{1,9})([smhdw]?)")


def rights_of(
    models: list[str] | None,
    endpoints: list[str] | None,
    highest_class: str | None,
    sources: list[str] | None,
    limits: list[str] | None,
    admin: str | None,
    weight: float | None,
) -> Json:
    """Rights as JSON, those that were given. Raises InvalidRequest."""
    given: Json = {
        "models": models,
        "endpoints": endpoints,
        "highest_class": highest_class,
        "sources": sources,
        "limits": dict(map(limit_of, limits)) if limits else None,
        "weight": weight,
    }
    found = {name: value for name, value in given.items() if value not in (None, [])}
    found |= {name: [] for name, value in found.items() if value == ["none"]}
    return found | ({"admin": True, "manages": admin} if admin is not None else {})


def limit_of(text: str) -> tuple[str, float | None]:
    """``requests_per_minute=60`` as a name and a number; ``none`` is no limit.

    Raises InvalidRequest.
    """
    name, _, number = text.partition("=")
    if number.lower() == "none":
        return name, None
    try:
        return name, int(number) if number.isdigit() else float(number)
    except ValueError:
        raise InvalidRequest(
            f"--limit {text}: give a name and a number, such as requests_per_minute=60"
        ) from None


def seconds_of(text: str, option: str) -> int:
    """``90``, ``30m``, ``12h``, ``7d`` or ``2w`` in seconds. Raises InvalidRequest."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise InvalidRequest(f"{option} {text}: give a span of time such as 30m, 12h or 7d")
    return int(found[1]) * UNITS_S[found[2] or "s"]


def expiry_of(text: str | None) -> Json:
    """``30d``, ``never`` or a moment as the field that says so. Raises InvalidRequest."""
    if text is None:
        return {}
    if text == "never":
        return {"expires_at": None}
    if _SPAN.fullmatch(text):
        return {"expires_in_s": seconds_of(text, "--expires")}
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            f"--expires {text}: give a span such as 30d, a date such as 2027-01-31, or never"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return {"expires_at": int(moment.timestamp())}


def json_of(text: str | None) -> Json:
    """A JSON object. Raises InvalidRequest."""
    if text is None:
        return {}
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"--rights is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidRequest('--rights needs a JSON object such as {"models": null}')
    return document


def operator() -> Actor:
    """Whoever runs this command; for the audit log."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return Actor(id=f"cli:{user}")
