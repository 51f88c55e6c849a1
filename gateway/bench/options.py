"""What a benchmark was asked to do, checked before anything is sent."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gateway.bench.errors import BenchError
from gateway.bench.lengths import Lengths

Endpoint = Literal["chat", "completions"]
OBJECTIVES = ("ttft", "itl", "tpot", "e2el")
MOST_CONCURRENCY = 20_000


@dataclass(frozen=True, slots=True)
class Server:
    """One server to load.

    Attributes:
        name: how it is called in results.
        base_url: as OpenAI's SDK takes it; without a version, ``/v1`` is added.
        model: None takes the server's first.
    """

    name: str
    base_url: str
    api_key: str | None = None
    model: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """Everything that decides what is sent, and what is measured of it.

    Attributes:
        rates: requests per second of each stage of an open loop; empty for a closed loop.
        concurrencies: callers of each stage of a closed loop; with rates at most one, a bound.
        burstiness: shape of the gamma distribution of pauses; 1 is Poisson, inf is a metronome.
        requests: per stage. duration_s: of sending, per stage. Whichever comes first ends it.
        objectives: milliseconds by name of OBJECTIVES.
        rounds: how often two servers take turns.
    """

    servers: tuple[Server, ...]
    endpoint: Endpoint = "chat"
    rates: tuple[float, ...] = ()
    concurrencies: tuple[int, ...] = ()
    burstiness: float = 1.0
    trace: Path | None = None
    trace_unit_s: float = 1.0
    trace_speed: float = 1.0
    requests: int | None = None
    duration_s: float | None = None
    input_len: Lengths | None = None
    output_len: Lengths | None = None
    prompts: Path | None = None
    seed: int = 0
    ignore_eos: bool | None = None
    temperature: float | None = None
    extra_body: dict[str, Any] = field(default_factory=dict)
    objectives: dict[str, float] = field(default_factory=dict)
    percentiles: tuple[float, ...] = (90.0, 95.0, 99.0)
    timeout_s: float = 600.0
    warmups: int = 1
    rounds: int = 6
    label: str | None = None

    @property
    def open_loop(self) -> bool:
        """Whether requests are sent by the clock."""
        return bool(self.rates) or self.trace is not None

    def check(self) -> None:
        """Raises BenchError for what makes no sense together."""
        if self.trace is not None and (self.rates or self.prompts is not None):
            raise BenchError(
                "--trace says when and what to send: leave --request-rate and --prompts out"
            )
        if self.open_loop and len(self.concurrencies) > 1:
            raise BenchError(
                "give either several --request-rate or several --concurrency, not both"
            )
        if any(not 0 < rate < math.inf for rate in self.rates):
            raise BenchError("--request-rate must be above 0; for a closed loop use --concurrency")
        if any(not 1 <= number <= MOST_CONCURRENCY for number in self.concurrencies):
            raise BenchError(f"--concurrency must be between 1 and {MOST_CONCURRENCY}")
        if not all(0 < percent < 100 for percent in self.percentiles):
            raise BenchError("--percentiles must lie between 0 and 100")
        if not self.burstiness > 0:
            raise BenchError("--burstiness must be above 0; 1 is a Poisson process")
        if self.rounds < 2 and len(self.servers) > 1:
            raise BenchError("--rounds must be at least 2: servers are compared between rounds")


def read_numbers(text: str | None, option: str) -> tuple[float, ...]:
    """``1,2,4`` as numbers. Raises BenchError."""
    if text is None:
        return ()
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BenchError(f"{option} {text!r} is not a number, or numbers with commas") from None


def read_objectives(pairs: list[str]) -> dict[str, float]:
    """``ttft:200`` and the like, in milliseconds. Raises BenchError."""
    objectives = {}
    for pair in [part for text in pairs for part in text.replace(",", " ").split()]:
        name, _, value = pair.partition(":")
        try:
            limit = float(value)
        except ValueError:
            limit = math.nan
        if name not in OBJECTIVES or not 0 <= limit < math.inf:
            raise BenchError(
                f"--goodput {pair!r} is not NAME:MILLISECONDS; names are {', '.join(OBJECTIVES)}"
            )
        objectives[name] = limit
    return objectives


def read_whole_numbers(text: str | None, option: str) -> tuple[int, ...]:
    """``1,2,4`` as whole numbers. Raises BenchError."""
    numbers = read_numbers(text, option)
    if not all(number == int(number) for number in numbers if math.isfinite(number)):
        raise BenchError(f"{option} {text!r} must be whole numbers")
    if not all(map(math.isfinite, numbers)):
        raise BenchError(f"{option} {text!r} must be finite")
    return tuple(int(number) for number in numbers)
