"""What a spec's machines cost in a month, from the dated price file."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from deploy.vertex.machines import price_name
from deploy.vertex.spec import Deployment, Spec
from engine.capacity.prices import HOURS_PER_MONTH, Price, PriceList, age_warning

# These are several of the smaller one in one machine, in vCPUs and memory as in GPUs.
_MULTIPLES = {f"g2-standard-{cores}": "g2-standard-12" for cores in (24, 48, 96)}
SURCHARGE = (
    "List prices of Compute Engine's machines: Vertex AI bills SKUs of its own for online "
    "prediction, somewhat above these; traffic, logs and storage come on top."
)


@dataclass(frozen=True, slots=True)
class Cost:
    """One deployment's machines.

    Attributes:
        hourly: one replica, None without a figure.
        monthly_min, monthly_max: 730 hours with the fewest and the most replicas.
        notes: where the figure is from, and what is doubtful about it.
    """

    deployment: str
    machine: str
    currency: str
    hourly: float | None
    monthly_min: float | None
    monthly_max: float | None
    notes: tuple[str, ...]


def costs(spec: Spec, prices: PriceList, today: date) -> list[Cost]:
    """What each deployment costs."""
    return [_cost(spec, each, prices, today) for each in spec.deployments]


def total(found: list[Cost]) -> tuple[float, float] | None:
    """Lowest and highest sum per month, None where a figure is missing."""
    lowest = [each.monthly_min for each in found if each.monthly_min is not None]
    highest = [each.monthly_max for each in found if each.monthly_max is not None]
    if len(lowest) < len(found) or len(highest) < len(found):
        return None
    return sum(lowest), sum(highest)


def _cost(spec: Spec, deployment: Deployment, prices: PriceList, today: date) -> Cost:
    machine, scaling = deployment.machine, deployment.scaling
    gpu = price_name(machine.type, machine.accelerator)
    found = _find(prices, machine.type, gpu, spec.region)
    if found is None or found.on_demand is None:
        note = f"no dated price of {machine.type}: give one with --prices FILE"
        return Cost(deployment.name, machine.type, prices.currency, None, None, None, (note,))
    notes = [f"{found.machine}, {found.region}, as of {found.as_of}: {found.source}"]
    if (warning := age_warning(found, today)) != "":
        notes.append(warning)
    if found.region != spec.region:
        notes.append(f"no dated price of {spec.region}: {found.region}'s is shown")
    factor = (machine.count or 1) / found.gpus
    if _machine(found) != machine.type:
        notes.append(f"no dated price of {machine.type}: {factor:g} x {_machine(found)} is shown")
    each = found.on_demand
    if machine.spot and found.spot is not None:
        each = found.spot
        notes.append("Spot prices may change daily")
    elif machine.spot:
        notes.append("no dated Spot price: the full price is shown, Spot is below it")
    hourly = each * factor
    month = hourly * HOURS_PER_MONTH
    return Cost(
        deployment.name,
        machine.type,
        prices.currency,
        hourly,
        month * scaling.min_replicas,
        month * scaling.max_replicas,
        tuple(notes),
    )


def _find(prices: PriceList, machine: str, gpu: str, region: str) -> Price | None:
    """The machine's own price before its GPU's, the region's own before another's."""
    wanted = (machine, _MULTIPLES.get(machine, machine))
    same = [p for p in prices.entries if _machine(p) in wanted]
    if not same and gpu != "cpu":
        same = [p for p in prices.entries if p.gpu == gpu]
    order = sorted(same, key=lambda p: (p.region != region, _machine(p) != machine, -p.gpus))
    return next((p for p in order if p.on_demand is not None), None)


def _machine(price: Price) -> str:
    return price.machine.split()[0]
