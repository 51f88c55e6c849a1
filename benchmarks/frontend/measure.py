"""What is measured of a server, and the numbers that follow from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from benchmarks.frontend.servers import MODEL, Server
from benchmarks.machine import OtherWork
from benchmarks.pool import Worker

CLIENT_TIMEOUT_S = 900.0
# Both servers give up a stream that is shorter, so the prompt fits any context.
WORDS = 20


@dataclass(frozen=True, slots=True)
class Shape:
    """One load: ``requests`` over ``streams`` connections, ``tokens`` each."""

    streams: int
    requests: int
    tokens: int

    @property
    def per_request(self) -> bool:
        """Whether it measures what a request costs, rather than what its tokens cost."""
        return self.tokens == 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One load on one server.

    Attributes:
        cpu_s: CPU seconds of the server's own process, engine processes not counted.
        tokens, events, seconds: as the client saw them.
    """

    cpu_s: float
    seconds: float
    tokens: int
    events: int
    requests: int
    client_cpu_s: float
    ttft_s: list[float]

    @property
    def cpu_s_per_1000_tokens(self) -> float:
        return self.cpu_s / self.tokens * 1000

    @property
    def cpu_ms_per_request(self) -> float:
        return self.cpu_s / self.requests * 1000

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds

    @property
    def tokens_per_cpu_s(self) -> float:
        """What one core sustains: a server's process runs on one core at a time."""
        return self.tokens / self.cpu_s

    @property
    def requests_per_cpu_s(self) -> float:
        return self.requests / self.cpu_s

    @property
    def tokens_per_event(self) -> float:
        """1 where every token is an event; the first and last events hold no token."""
        return self.tokens / max(1, self.events - 2 * self.requests)

    def ttft_ms(self, share: float) -> float:
        return percentile(self.ttft_s, share) * 1000


@dataclass(slots=True)
class Results:
    """Samples by server and load, in the order of the rounds."""

    samples: dict[tuple[str, Shape], list[Sample]] = field(default_factory=dict)
    other_work: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def add(self, server: str, shape: Shape, sample: Sample) -> None:
        """Note a sample."""
        self.samples.setdefault((server, shape), []).append(sample)

    def get(self, server: str, shape: Shape) -> list[Sample]:
        """The samples of a server under a load; empty when it was not measured."""
        return self.samples.get((server, shape), [])

    def as_json(self) -> list[dict[str, Any]]:
        """Every sample."""
        return [
            {"server": server, "load": asdict(shape), "samples": [asdict(s) for s in samples]}
            for (server, shape), samples in self.samples.items()
        ]


def measure(server: Server, client: Worker, shape: Shape, seed: int, other: OtherWork) -> Sample:
    """Put one load on a server that runs alone; raises WorkerError."""
    command = {
        "op": "load",
        "host": "127.0.0.1",
        "port": server.port,
        "model": MODEL,
        "seed": seed,
        "words": WORDS,
        "streams": shape.streams,
        "requests": shape.requests,
        "tokens": shape.tokens,
    }
    server.thaw()
    other.start()
    cpu = server.cpu_s()
    answer = client.ask(command, CLIENT_TIMEOUT_S)
    cpu = server.cpu_s() - cpu
    other.stop()
    return Sample(
        cpu_s=cpu,
        **{
            name: answer[name]
            for name in ("seconds", "tokens", "events", "requests", "client_cpu_s", "ttft_s")
        },
    )


def percentile(values: list[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def ratios(over: list[float], under: list[float]) -> list[float]:
    """Round by round."""
    return [a / b for a, b in zip(over, under, strict=True)]


def middle(values: list[float]) -> float:
    """The median; NaN of nothing."""
    return median(values) if values else float("nan")
