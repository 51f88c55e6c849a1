"""What ends a Triton command."""

from __future__ import annotations

from engine.base import EngineStartError


class TritonError(EngineStartError):
    """A repository cannot be written, is not right, or does not run. Says what to change."""


class ServerUnavailable(TritonError):
    """The triton environment is there, and its server cannot run on this machine."""
