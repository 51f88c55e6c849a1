"""A hook that replaces what matches a pattern in answers, wherever the text happens to be cut.

HOOKS=redact
HOOK_OPTIONS={"redact": {"patterns": ["email", "PRJ-[0-9]{4,8}"], "replacement": "[...]"}}
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from gateway.hooks.api import About, Channel, Hook
from gateway.hooks.patterns import Pattern, read_pattern

MAX_PATTERNS = 64
KNOWN = {
    "email": r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,60}\.[A-Za-z]{2,18}",
    "card": r"(?<![0-9])[0-9](?:[ -]?[0-9]){12,18}(?![0-9])",
    "api_key": r"\b(?:sk|pk|rk|ghp|gho|xoxb|glpat)[-_][A-Za-z0-9_-]{16,180}",
}


class Redact(Hook):
    """Replaces in content, reasoning and the arguments of tool calls.

    Args:
        patterns: names of ``KNOWN`` or regular expressions whose matches have a bounded length.
            Of several that match, the one that begins first counts, then the one named first.
        replacement: put in place of each match.

    Raises ValueError for a pattern that cannot be used.
    """

    def __init__(
        self, patterns: Sequence[str] = tuple(KNOWN), replacement: str = "[redacted]"
    ) -> None:
        if isinstance(patterns, str) or not patterns or len(patterns) > MAX_PATTERNS:
            raise ValueError(f"patterns is a list of 1 to {MAX_PATTERNS}")
        self._patterns = [read_pattern(KNOWN.get(text, text)) for text in patterns]
        self._replacement = replacement

    def rewriter(self, about: About, channel: Channel) -> Redactor:
        """In the JSON of arguments the replacement is spelled as JSON wants it."""
        escaped = json.dumps(self._replacement, ensure_ascii=False)[1:-1]
        return Redactor(self._patterns, escaped if channel == "arguments" else self._replacement)


class Redactor:
    """Redacts one text. Holds back as many characters as a match can have, and few more."""

    __slots__ = ("_ahead", "_behind", "_buffer", "_patterns", "_position", "_replacement")

    def __init__(self, patterns: Sequence[Pattern], replacement: str) -> None:
        self._patterns = patterns
        self._replacement = replacement
        self._behind = max(pattern.behind for pattern in patterns)
        self._ahead = max(pattern.ahead for pattern in patterns)
        self._buffer = ""
        self._position = 0

    def feed(self, text: str) -> str:
        """What is decided by now."""
        self._buffer += text
        return self._decide(len(self._buffer) - self._ahead + 1)

    def finish(self) -> str:
        """The rest."""
        return self._decide(len(self._buffer) + 1)

    def _decide(self, end: int) -> str:
        """Redact matches that begin before ``end``, and give out what lies before it."""
        shown: list[str] = []
        while self._position < end:
            found = self._leftmost()
            if found is None or found[0] >= end:
                shown.append(self._buffer[self._position : end])
                self._position = end
                break
            shown += (self._buffer[self._position : found[0]], self._replacement)
            self._position = found[1]
        self._position = min(self._position, len(self._buffer))
        if (cut := self._position - self._behind) > 0:
            self._buffer = self._buffer[cut:]
            self._position = self._behind
        return "".join(shown)

    def _leftmost(self) -> tuple[int, int] | None:
        best: tuple[int, int] | None = None
        for pattern in self._patterns:
            match = pattern.regex.search(self._buffer, self._position)
            if match is not None and (best is None or match.start() < best[0]):
                best = match.span()
        return best
