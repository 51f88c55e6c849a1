"""Why a benchmark cannot begin or go on."""

from __future__ import annotations


class BenchError(Exception):
    """The message says what is wrong and what to do."""


class Interrupted(Exception):
    """The user ended the run before anything was measured."""
