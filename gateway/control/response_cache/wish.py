"""Whether the cache of answers may be used: what the operator allows and the caller asks for."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from gateway.errors import InvalidRequest

HEADER = b"x-gateway-cache"


@dataclass(frozen=True, slots=True)
class Policy:
    """RESPONSE_CACHE: ``off``, ``ask``, ``auto``, or a list of ``model:NAME`` and ``key:ID``.

    With models listed only requests for them are cached unasked, with keys only theirs.

    Attributes:
        mode: ``auto`` with a list as well.
        models, keys: empty means all.
    """

    mode: Literal["off", "ask", "auto"] = "ask"
    models: frozenset[str] = frozenset()
    keys: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str) -> Policy:
        """Raises ValueError with the fix."""
        text = text.strip()
        match text:
            case "off" | "ask" | "auto":
                return cls(text)
        kinds: dict[str, set[str]] = {"model": set(), "key": set()}
        for part in text.split(","):
            kind, _, value = part.strip().partition(":")
            if kind not in kinds or not value:
                raise ValueError(
                    f"'{part.strip()[:64]}' is not understood: use off, ask, auto, or a "
                    "comma-separated list of model:NAME and key:ID"
                )
            kinds[kind].add(value)
        return cls("auto", frozenset(kinds["model"]), frozenset(kinds["key"]))

    def covers(self, model_names: Collection[str], key_id: str) -> bool:
        """Whether this key's requests for this model are cached unasked."""
        if self.mode != "auto" or (self.keys and key_id not in self.keys):
            return False
        return not self.models or not self.models.isdisjoint(model_names)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants of the cache.

    Attributes:
        asked: by the header; otherwise the policy decides.
        reads: an answer from the cache will do, if not older than ``max_age_s``.
    """

    asked: bool = False
    reads: bool = True
    max_age_s: float = math.inf


def read_wish(headers: Mapping[bytes, bytes], policy: Policy) -> Wish | None:
    """What the headers ask for, or None when the cache is not to be used at all.

    ``Cache-Control`` counts as RFC 9111 has it, except that ``no-store`` keeps the request away
    from the cache altogether. Raises InvalidRequest.
    """
    value = headers.get(HEADER)
    if value is None and policy.mode != "auto":
        return None
    if value is not None and value.lower() not in (b"on", b"off"):
        raise InvalidRequest(
            "The header 'x-gateway-cache' must be on or off.", param=HEADER.decode()
        )
    if policy.mode == "off" or (value is not None and value.lower() == b"off"):
        return None
    control = directives(headers.get(b"cache-control", b""))
    if b"no-store" in control:
        return None
    max_age_s = control.get(b"max-age", b"")
    return Wish(
        asked=value is not None,
        reads=b"no-cache" not in control,
        max_age_s=int(max_age_s) if max_age_s.isdigit() and len(max_age_s) < 12 else math.inf,
    )


def directives(value: bytes) -> dict[bytes, bytes]:
    """The parts of a Cache-Control header, by their lower-case name."""
    parts = (part.strip().partition(b"=") for part in value.split(b","))
    return {name.strip().lower(): text.strip().strip(b'"') for name, _, text in parts}
