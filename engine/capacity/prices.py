"""Prices from a dated file: what a replica costs, and how old the figure is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from engine.capacity import CapacityError

SHIPPED = Path(__file__).with_name("prices.json")
HOURS_PER_MONTH = 730.0
OLD_DAYS = 90
_FIELDS = "machine, gpu, gpus, region, on_demand, spot (or null), as_of (YYYY-MM-DD) and source"


@dataclass(frozen=True, slots=True)
class Price:
    """One machine type. Prices per machine and hour; None where there is no figure."""

    machine: str
    gpu: str
    gpus: int
    region: str
    on_demand: float | None
    spot: float | None
    as_of: date
    source: str


@dataclass(frozen=True, slots=True)
class Cost:
    """What ``machines`` of one type cost per hour."""

    price: Price
    machines: int
    currency: str

    def hourly(self, spot: bool = False) -> float | None:
        each = self.price.spot if spot else self.price.on_demand
        return None if each is None else each * self.machines

    def monthly(self, spot: bool = False) -> float | None:
        hourly = self.hourly(spot)
        return None if hourly is None else hourly * HOURS_PER_MONTH

    def per_million(self, tokens_per_s: float, spot: bool = False) -> float | None:
        """Price of a million output tokens at a rate over all machines."""
        hourly = self.hourly(spot)
        return None if hourly is None or tokens_per_s <= 0 else hourly / tokens_per_s / 0.0036


@dataclass(frozen=True, slots=True)
class PriceList:
    """All prices of one file."""

    file: Path
    currency: str
    entries: tuple[Price, ...]

    def cost(self, gpu: str, gpus: int, replicas: int, region: str | None = None) -> Cost | None:
        """The cheapest machines that hold ``replicas`` of ``gpus`` GPUs each, or None without a
        price. Replicas share a machine and none spans two; where only smaller machines have a
        price, GPU for GPU at theirs, which is what list prices of larger ones come to."""
        here = [p for p in self.entries if p.gpu == gpu and region in (None, p.region)]
        large = [p for p in here if p.gpus >= gpus]
        found = [Cost(p, math.ceil(replicas / (p.gpus // gpus)), self.currency) for p in large]
        if not large:
            needed = replicas * gpus
            found = [Cost(p, math.ceil(needed / p.gpus), self.currency) for p in here]
        priced = [cost for cost in found if cost.hourly() is not None]
        return min(priced, key=lambda cost: cost.hourly() or 0.0, default=None)


def read_prices(file: Path | None = None) -> PriceList:
    """Read a JSON or YAML price file; None is the shipped one. Raises CapacityError."""
    path = file or SHIPPED
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except (OSError, ValueError) as error:
        raise CapacityError(f"the price file {path} cannot be read ({error})") from error
    if not isinstance(raw, Mapping) or not isinstance(raw.get("entries"), list):
        raise CapacityError(f"{path} has no list of entries, each with {_FIELDS}")
    entries = tuple(_entry(path, i, entry) for i, entry in enumerate(raw["entries"], 1))
    return PriceList(path, str(raw.get("currency", "USD")), entries)


def age_warning(price: Price, today: date) -> str:
    """A sentence when the figure is old, else nothing."""
    days = (today - price.as_of).days
    if days <= OLD_DAYS:
        return ""
    return (
        f"the price of {price.machine} is of {price.as_of} ({days} days old): check {price.source} "
        "and give newer figures with --prices FILE"
    )


def _yaml(text: str) -> Any:
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _entry(path: Path, number: int, raw: Any) -> Price:
    try:
        machine, as_of = raw["machine"], raw["as_of"]
        price = Price(
            str(machine),
            str(raw["gpu"]).lower(),
            int(raw["gpus"]),
            str(raw["region"]),
            _money(raw["on_demand"]),
            _money(raw["spot"]),
            as_of if isinstance(as_of, date) else date.fromisoformat(str(as_of)),
            str(raw["source"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CapacityError(
            f"{path}, entry {number}: {type(error).__name__} {error}; each entry needs {_FIELDS}"
        ) from error
    if price.gpus < 1:
        raise CapacityError(f"{path}, entry {number}: gpus is the number of GPUs, 1 or more")
    return price


def _money(value: Any) -> float | None:
    if value is None:
        return None
    amount = float(value)
    if not 0 <= amount < 1e6:
        raise ValueError(f"{value} is no price per hour")
    return amount
