"""What tokens cost: a dated table, read from PRICES_FILE.

    date: 2026-11-01
    source: https://example.com/pricing
    models:
      big-model: {input: 2.50, cached: 0.25, output: 10.00}

Prices are US dollars per million tokens, by the name of the model that answers; the entry ``*``
is for every model without one of its own. What has no price costs nothing, which is right for
models that run on one's own machines. A file is YAML or JSON, which is a subset of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

PER = 1_000_000
ANY_MODEL = "*"
MOST_BYTES = 4 * 1024 * 1024
MOST_USD = 1e6

KINDS = frozenset({"input", "cached", "output"})
FIELDS = frozenset({"date", "source", "models"})


class PricesError(ValueError):
    """The price file is not usable. The message says where and why."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens: of prompts, of prompts found in a cache, of answers."""

    input: float = 0.0
    cached: float = 0.0
    output: float = 0.0


NOTHING = Price()


class PriceTable:
    """Prices by model, immutable. Without any, everything is free.

    Attributes:
        date: from which the prices are, as YYYY-MM-DD; empty for a table without any.
        source: where they were published.
    """

    __slots__ = ("_other", "_prices", "date", "source")

    def __init__(
        self, prices: Mapping[str, Price] | None = None, date: str = "", source: str = ""
    ) -> None:
        self._prices = dict(prices or {})
        self._other = self._prices.pop(ANY_MODEL, NOTHING)
        self.date = date
        self.source = source

    def by_model(self) -> dict[str, Price]:
        """Every price that the table states, ``*`` for all other models."""
        other = {} if self._other is NOTHING else {ANY_MODEL: self._other}
        return self._prices | other

    def usd(
        self, model: str, prompt_tokens: int, cached_tokens: int, completion_tokens: int
    ) -> float:
        """What a request costs. ``cached_tokens`` are those of the prompt found in a cache;
        reasoning tokens are part of ``completion_tokens``."""
        price = self._prices.get(model, self._other)
        fresh = prompt_tokens - cached_tokens
        dollars = fresh * price.input + cached_tokens * price.cached
        return (dollars + completion_tokens * price.output) / PER

    def usd_of(self, details: Mapping[str, Any]) -> float:
        """What a generation costs, by the fields of its access log line."""
        if details.get("ttft_ms") is None:  # it never gave a token
            return 0.0
        counts = (details[f"{kind}_tokens"] for kind in ("prompt", "cached", "completion"))
        return self.usd(details["model"], *counts)


def load_prices(path: Path | None) -> PriceTable:
    """The table in a file, or an empty one for None. Raises PricesError."""
    if path is None:
        return PriceTable()
    import yaml  # type: ignore[import-untyped]

    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise PricesError(f"{path} is larger than {MOST_BYTES} bytes")
        document = yaml.safe_load(text)
    except OSError as error:
        raise PricesError(f"{path} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" near line {mark.line + 1}" if mark is not None else ""
        raise PricesError(f"{path} is neither YAML nor JSON{where}") from None
    return read_prices(document)


def read_prices(document: Any) -> PriceTable:
    """The table that a parsed file describes. Raises PricesError."""
    if not isinstance(document, dict):
        raise PricesError("it must be an object with date, source and models")
    if unknown := sorted(map(str, document.keys() - FIELDS)):
        raise PricesError(f"'{unknown[0]}' is unknown; there are date, source and models")
    models = document.get("models")
    if not isinstance(models, dict) or not models:
        raise PricesError("'models' must hold at least one model with its prices")
    source = document.get("source")
    if not isinstance(source, str) or not source.strip():
        raise PricesError("'source' must say where the prices come from")
    prices = {str(name): read_price(entry, f"models.{name}") for name, entry in models.items()}
    return PriceTable(prices, read_date(document.get("date")), source.strip())


def read_price(entry: Any, where: str) -> Price:
    """One model's prices; what is left out of ``cached`` costs as much as ``input``."""
    if not isinstance(entry, dict):
        raise PricesError(f"'{where}' must be an object with input, cached and output")
    if unknown := sorted(map(str, entry.keys() - KINDS)):
        raise PricesError(f"'{where}.{unknown[0]}' is unknown; there are input, cached and output")
    for kind in ("input", "output"):
        if kind not in entry:
            raise PricesError(f"'{where}.{kind}' is missing; write 0 for what is free")
    usd = {kind: read_usd(value, f"{where}.{kind}") for kind, value in entry.items()}
    return Price(usd["input"], usd.get("cached", usd["input"]), usd["output"])


def read_usd(value: Any, where: str) -> float:
    """Dollars per million tokens."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not 0 <= value <= MOST_USD:
        raise PricesError(
            f"'{where}' must be US dollars per million tokens, from 0 to {MOST_USD:.0f}"
        )
    return float(value)


def read_date(value: Any) -> str:
    """A day as YYYY-MM-DD; YAML makes a date of it by itself."""
    if type(value) is date:
        return value.isoformat()
    try:
        return date.fromisoformat(value).isoformat()
    except (TypeError, ValueError):
        raise PricesError("'date' must be the day the prices are from, as YYYY-MM-DD") from None
