"""What can go wrong between the gateway and another server."""

from __future__ import annotations

from dataclasses import dataclass


class UpstreamFault(Exception):
    """One attempt at one server failed. The text is for logs.

    Attributes:
        stale: a kept connection had been closed by the server before it read the request.
    """

    stale = False

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale


class Unreachable(UpstreamFault):
    """No connection: refused, reset, no route, TLS, or not in time."""


class Broken(UpstreamFault):
    """The connection ended before the response did."""


class Silent(UpstreamFault):
    """Nothing came for longer than the target's bound."""


class NotUnderstood(UpstreamFault):
    """Not HTTP, not the announced type, or not the protocol that was asked for."""


class Failed(UpstreamFault):
    """A 5xx, or an error in a stream."""


class Refused(UpstreamFault):
    """The server does not take the gateway's credentials, or does not know the model."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Busy(UpstreamFault):
    """The server is overloaded, or a limit of the gateway's own account there is reached."""

    status: int
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return f"answered {self.status}"


@dataclass
class Rejected(UpstreamFault):
    """The request itself is at fault, in the server's own words."""

    status: int
    message: str
    param: str | None
    code: str | None

    def __str__(self) -> str:
        return f"rejected with {self.status}"

    @property
    def too_long(self) -> bool:
        """Whether prompt and output do not fit the model."""
        if self.code == "context_length_exceeded":
            return True
        text = self.message.lower()
        return "context length" in text or "maximum context" in text or "prompt is too long" in text
