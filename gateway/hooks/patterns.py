"""Regular expressions whose matches have a bounded length, found in a text that is still coming.

Whether one matches at a position depends on a bounded number of characters before and after it.
So a position can be decided once that many have come, and the outcome is that of the whole text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

MAX_MATCH = 1024
# An anchor looks at one character on either side, and ``$`` past a line break at the end.
ANCHOR_BEHIND, ANCHOR_AHEAD = 1, 2


@dataclass(frozen=True, slots=True)
class Pattern:
    """A checked pattern.

    Attributes:
        behind: most characters before a match that decide on it.
        ahead: most characters from its beginning that decide on it.
    """

    regex: re.Pattern[str]
    behind: int
    ahead: int


def read_pattern(text: str) -> Pattern:
    """Raises ValueError with the fix."""
    try:
        parsed = _parser.parse(text)
        regex = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    least, most = parsed.getwidth()
    if not least:
        raise ValueError(f"{text!r} matches the empty text; let it match something")
    if most > MAX_MATCH:
        raise ValueError(
            f"{text!r} can match more than {MAX_MATCH} characters; bound its repetitions, such as "
            "{1,64} for + and {0,64} for *"
        )
    seen = Looks()
    seen.read(parsed)
    return Pattern(regex, ANCHOR_BEHIND + seen.behind, most + ANCHOR_AHEAD + seen.ahead)


class Looks:
    """How far the lookarounds of a pattern look at most, all together."""

    def __init__(self) -> None:
        self.behind = 0
        self.ahead = 0

    def read(self, parsed: Any) -> None:
        """Add those of a part. Raises ValueError."""
        for op, argument in parsed:
            if op in (_constants.ASSERT, _constants.ASSERT_NOT):
                direction, inner = argument
                width = inner.getwidth()[1]
                if width > MAX_MATCH:
                    raise ValueError(
                        f"a lookaround looks further than {MAX_MATCH} characters; bound its "
                        "repetitions"
                    )
                # Within one that looks back, what looks ahead may pass its end, and vice versa.
                self.behind += width if direction < 0 else 0
                self.ahead += width if direction > 0 else 0
            for part in parts_of(argument):
                self.read(part)


def parts_of(argument: Any) -> list[Any]:
    """The patterns within an argument of a parsed pattern."""
    if isinstance(argument, _parser.SubPattern):
        return [argument]
    if isinstance(argument, tuple | list):
        return [part for item in argument for part in parts_of(item)]
    return []
