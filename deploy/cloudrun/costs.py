"""What a service costs a month, from a dated price list."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from deploy.cloudrun.spec import Spec
from engine.capacity.prices import HOURS_PER_MONTH, Price, PriceList, age_warning

# In the format of those of machines with GPUs; the units are Cloud Run's own.
SHIPPED = Path(__file__).with_name("prices.json")


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one instance per hour, and of the fewest and most instances per month.

    Attributes:
        hourly: None where a price is missing.
        notes: what the figures leave out, and how old they are.
    """

    currency: str
    hourly: float | None
    least: float | None
    most: float | None
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        if self.hourly is None or self.least is None or self.most is None:
            return list(self.notes)
        return [
            f"{self.hourly:.4f} {self.currency} per instance and hour at work",
            f"{self.least:,.0f} to {self.most:,.0f} {self.currency} per month, by how many "
            "instances run",
            *self.notes,
        ]


def costs(spec: Spec, prices: PriceList, today: date) -> Costs:
    """The list price of the spec, without free tiers, discounts, requests and network."""
    suffix = "" if spec.billing == "instance" else "-active"
    parts = [(f"cloudrun-vcpu{suffix}", spec.cpu), (f"cloudrun-gib{suffix}", spec.gib)]
    if spec.gpu:
        parts.append((f"cloudrun-{spec.gpu}", 1))
    found = [(_price(prices, name, spec.region), count) for name, count in parts]
    notes = []
    hourly = 0.0
    for (name, _), (price, count) in zip(parts, found, strict=True):
        if price is None or price.on_demand is None:
            return Costs(
                prices.currency,
                None,
                None,
                None,
                (f"no price of {name} in {prices.file}: add an entry for {spec.region}",),
            )
        hourly += price.on_demand * count
        notes += [each for each in (age_warning(price, today),) if each and each not in notes]
        if price.region != spec.region:
            notes.append(f"the price of {price.machine} is that of {price.region}")
    monthly = hourly * HOURS_PER_MONTH
    least = monthly * spec.scaling.min
    if spec.billing == "request":
        least = 0.0
        notes.append("an idle instance of min costs less than one at work: not counted in the less")
    return Costs(prices.currency, hourly, least, monthly * spec.scaling.max, tuple(notes))


def _price(prices: PriceList, name: str, region: str) -> Price | None:
    same = [entry for entry in prices.entries if entry.gpu == name]
    return next((x for x in same if x.region == region), same[0] if same else None)
