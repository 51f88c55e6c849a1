"""Distributions of prompt and output lengths, as they are written on the command line."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from gateway.bench.errors import BenchError

LONGEST = 10_000_000
FORMS = (
    "128, fixed:128, uniform:64:256, normal:MEAN:DEVIATION, lognormal:MEDIAN:P95 "
    "or exponential:MEAN, each with :min=N and :max=N if wanted"
)
_Z95 = 1.6448536269514722

Draw = Callable[[Random], float]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Whole numbers of tokens, at least 1, each draw independent of the others."""

    spec: str
    draw: Draw
    smallest: int = 1
    largest: int = LONGEST

    def sample(self, rng: Random) -> int:
        """One length in tokens."""
        return min(self.largest, max(self.smallest, round(self.draw(rng))))


def read_lengths(spec: str, option: str) -> Lengths:
    """The distribution that ``spec`` names. Raises BenchError, naming ``option``."""
    try:
        return _read(spec.strip())
    except (ValueError, TypeError) as error:
        reason = f" ({error})" if isinstance(error, _Reason) else ""
        raise BenchError(f"{option} {spec!r} is not a length{reason}; write {FORMS}") from None


class _Reason(ValueError):
    """A value that is out of bounds, in words."""


def _read(spec: str) -> Lengths:
    name, *parts = spec.lower().split(":")
    if name[:1].isdigit():
        name, parts = "fixed", [name, *parts]
    bounds = {"min": 1, "max": LONGEST}
    while parts and "=" in parts[-1]:
        bound, _, value = parts.pop().partition("=")
        if bound not in bounds:
            raise _Reason(f"{bound!r} is neither min nor max")
        bounds[bound] = int(value)
    if not 1 <= bounds["min"] <= bounds["max"] <= LONGEST:
        raise _Reason(f"1 <= min <= max <= {LONGEST} must hold")
    if name not in _MAKERS or len(parts) != _MAKERS[name][1]:
        raise ValueError(spec)
    maker, _ = _MAKERS[name]
    values = [float(part) for part in parts]
    if not all(math.isfinite(value) and 0 < value <= LONGEST for value in values):
        # A deviation of zero is a fixed length.
        raise _Reason(f"every number must be above 0 and at most {LONGEST}")
    return Lengths(spec, maker(*values), bounds["min"], bounds["max"])


def _fixed(length: float) -> Draw:
    return lambda rng: length


def _uniform(low: float, high: float) -> Draw:
    if low > high:
        raise _Reason("the first bound is above the second")
    return lambda rng: rng.randint(int(low), int(high))


def _normal(mean: float, deviation: float) -> Draw:
    return lambda rng: rng.gauss(mean, deviation)


def _lognormal(median: float, p95: float) -> Draw:
    """Two quantiles, which people know of their traffic, instead of the logarithm's moments."""
    if p95 < median:
        raise _Reason("the 95th percentile is below the median")
    sigma = math.log(p95 / median) / _Z95
    return lambda rng: rng.lognormvariate(math.log(median), sigma)


def _exponential(mean: float) -> Draw:
    return lambda rng: rng.expovariate(1 / mean)


_MAKERS: dict[str, tuple[Callable[..., Draw], int]] = {
    "fixed": (_fixed, 1),
    "uniform": (_uniform, 2),
    "normal": (_normal, 2),
    "lognormal": (_lognormal, 2),
    "exponential": (_exponential, 1),
}
