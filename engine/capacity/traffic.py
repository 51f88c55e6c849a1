"""Request lengths and arrivals: what people write on the command line, and draws from it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

from engine.capacity import CapacityError

_QUANTILES = 2000  # of a distribution's inverse, from which mean and percentiles are taken
_FORMS = (
    "a number such as 512; uniform:LOW-HIGH; exponential:MEAN; lognormal:MEDIAN,P95; or "
    "@FILE with one number (or JSON object) per line"
)


@dataclass(frozen=True, slots=True)
class Lengths:
    """A distribution of whole numbers of tokens, at least 1.

    Attributes:
        text: as it was written.
        quantiles: its inverse at equally spaced probabilities, ascending.
    """

    text: str
    quantiles: tuple[int, ...]

    @property
    def mean(self) -> float:
        return sum(self.quantiles) / len(self.quantiles)

    @property
    def largest(self) -> int:
        return self.quantiles[-1]

    def percentile(self, share: float) -> int:
        """The smallest length that ``share`` (0 to 1) of the draws do not exceed."""
        index = math.ceil(share * len(self.quantiles)) - 1
        return self.quantiles[min(max(index, 0), len(self.quantiles) - 1)]

    def moment(self, function: Callable[[int], float]) -> float:
        """Mean of ``function`` over the distribution."""
        return sum(function(length) for length in self.quantiles) / len(self.quantiles)

    def draw(self, source: random.Random) -> int:
        return self.quantiles[int(source.random() * len(self.quantiles))]


def parse_lengths(text: str, field: str = "tokens") -> Lengths:
    """Read a distribution. ``field`` is its name in JSON lines. Raises CapacityError."""
    text = text.strip()
    if text.startswith("@"):
        return _from_file(Path(text[1:]).expanduser(), text, field)
    kind, _, rest = text.partition(":")
    try:
        inverse = _INVERSES[kind](rest) if rest else _constant(text)
    except (KeyError, ValueError):
        raise CapacityError(f"{text!r} is no distribution of lengths: write {_FORMS}") from None
    points = ((i + 0.5) / _QUANTILES for i in range(_QUANTILES))
    return Lengths(text, tuple(max(1, round(inverse(p))) for p in points))


def _constant(text: str) -> Callable[[float], float]:
    value = _positive(text)
    return lambda p: value


def _uniform(text: str) -> Callable[[float], float]:
    low, high = (_positive(part) for part in text.split("-"))
    if high < low:
        raise ValueError
    return lambda p: low + p * (high - low)


def _exponential(text: str) -> Callable[[float], float]:
    mean = _positive(text)
    return lambda p: -mean * math.log1p(-p)


def _lognormal(text: str) -> Callable[[float], float]:
    median, high = (_positive(part) for part in text.split(","))
    if high <= median:
        raise ValueError
    normal = NormalDist()
    sigma = math.log(high / median) / normal.inv_cdf(0.95)
    return lambda p: median * math.exp(sigma * normal.inv_cdf(p))


_INVERSES: dict[str, Callable[[str], Callable[[float], float]]] = {
    "uniform": _uniform,
    "exponential": _exponential,
    "lognormal": _lognormal,
}


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value <= 10_000_000:
        raise ValueError
    return value


def _from_file(path: Path, text: str, field: str) -> Lengths:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise CapacityError(f"the lengths in {path} cannot be read ({error})") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            value = json.loads(line)
            found.append(round(_positive(str(value[field] if isinstance(value, dict) else value))))
        except (ValueError, KeyError, TypeError):
            raise CapacityError(
                f"{path}, line {number}: a positive number is needed, or a JSON object with {field}"
            ) from None
    if not found:
        raise CapacityError(f"{path} holds no lengths")
    return Lengths(text, tuple(sorted(max(1, value) for value in found)))


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests that arrive at random: independent of each other, ``rate`` per second."""

    rate: float
    prompt: Lengths
    output: Lengths

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1e6:
            raise CapacityError(f"{self.rate} requests per second: give a positive rate")

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that has to fit."""
        return self.prompt.largest + self.output.largest
