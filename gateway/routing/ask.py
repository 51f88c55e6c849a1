"""What routing needs to know of a request, and what it decided."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.routing.config import Api, ModelSpec

if TYPE_CHECKING:
    from gateway.control.replica import Replica

# Tokens of English text and code per byte of JSON, roughly; used where no tokenizer is at hand.
BYTES_PER_TOKEN = 4
# Output that is expected of a request that does not bound it, for comparing loads only.
EXPECTED_OUTPUT = 256


@dataclass(slots=True)
class Ask:
    """One request on its way to a target.

    Attributes:
        asked: first name of the model that the client asked for.
        session: who or what stays with one target; empty when nothing says.
        prefix: hash of the prompt's beginning; empty when it has none.
        tokens: estimated tokens of prompt and output, for comparing loads.
        steps: why it goes where it goes, in order.
        degraded: another model answers because the asked one cannot.
        replica: the engine of this process that was chosen, for the attempt that follows.
    """

    api: Api
    asked: str
    session: str = ""
    prefix: str = ""
    tokens: int = 0
    steps: list[str] = field(default_factory=list)
    degraded: bool = False
    replica: Replica | None = None


def session_of(
    spec: ModelSpec, headers: dict[bytes, bytes], document: dict[str, Any], principal_id: str
) -> str:
    """The session that the request belongs to, apart for every key."""
    value = headers.get(spec.session_header.encode(), b"").decode("latin-1")
    if not value:
        user = document.get("user")
        value = user if isinstance(user, str) else ""
    return f"{principal_id}\0{value}" if value else ""


def prefix_of(document: dict[str, Any], most_chars: int) -> str:
    """A hash of the first ``most_chars`` characters of what the model will read.

    Prompts that begin alike share KV blocks only up to the first difference, so the beginning is
    what should keep them together. Tools count: templates put them first.
    """
    digest = hashlib.blake2b(digest_size=16)
    left = most_chars
    for text in _texts(document):
        piece = text[:left]
        digest.update(piece.encode("utf-8", "replace"))
        digest.update(b"\0")
        left -= len(piece)
        if left <= 0:
            break
    return digest.hexdigest() if left < most_chars else ""


def _texts(document: dict[str, Any]) -> Any:
    for name in ("tools", "system", "instructions"):
        if document.get(name):
            value = document[name]
            yield value if isinstance(value, str) else repr(value)
    messages = document.get("messages")
    if messages is None:
        messages = document.get("input", document.get("prompt"))
    if isinstance(messages, str):
        yield messages
    elif isinstance(messages, list):
        for message in messages:
            if isinstance(message, dict):
                content = message.get("content")
                yield str(message.get("role", ""))
                yield content if isinstance(content, str) else repr(content)
            else:
                yield str(message)


def expected_tokens(size: int, document: dict[str, Any]) -> tuple[int, int, bool, int]:
    """Estimates from a body of ``size`` bytes: prompt tokens, most output tokens of a choice,
    whether the caller bounds them, and choices."""
    for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        value = document.get(name)
        if type(value) is int and value >= 0:
            capped, most = True, min(value, 10_000_000)
            break
    else:
        capped, most = False, EXPECTED_OUTPUT
    n = document.get("n")
    choices = min(n, 1024) if type(n) is int and n > 0 else 1
    return max(1, size // BYTES_PER_TOKEN), most, capped, choices
