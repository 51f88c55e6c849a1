"""Loads, samples, and what is compared with what."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from benchmarks.frontend.servers import Server
from benchmarks.machine import OtherWork
from benchmarks.pool import Worker
from benchmarks.proxy.servers import memory_mb

DIRECT = "direct"
CLIENT_TIMEOUT_S = 300.0
# Connections are made, caches are warm and a server that was frozen has caught up after this.
WARM_UP_S = 0.3
WARM_UP_CONNECTIONS = 8
SHARES = ("p50", "p95", "p99")

Measured = Literal["total_ms", "ttft_ms", "piece_ms"]


@dataclass(frozen=True, slots=True)
class LoadShape:
    """One load: ``rate`` requests per second at random moments, or ``connections`` callers that
    ask again when answered; the other one is 0."""

    stream: bool
    rate: float = 0.0
    connections: int = 0

    @property
    def kind(self) -> str:
        """For tables."""
        return "stream" if self.stream else "in one piece"


@dataclass(frozen=True, slots=True)
class Sample:
    """One load on one server.

    Attributes:
        cpu_s: of the proxy's process, all threads included; 0 without a proxy.
        load_core_s: CPU seconds of client and upstream, which share a core.
        memory_mb: resident, after the load; 0 without a proxy.
        at_s: since the start of the run.
        requests: answered well. sent: with the ones that were not, and those of the warm-up.
        total_ms, ttft_ms, piece_ms: percentiles; ``piece_ms`` is a piece's time on the way.
    """

    cpu_s: float
    seconds: float
    load_core_s: float
    memory_mb: float
    at_s: float
    requests: int
    sent: int
    faults: int
    first_fault: str | None
    total_ms: dict[str, float]
    ttft_ms: dict[str, float]
    piece_ms: dict[str, float]
    lag_ms: dict[str, float]

    @property
    def per_s(self) -> float:
        return self.requests / self.seconds

    @property
    def per_cpu_s(self) -> float:
        """Requests that a second of a core pays for."""
        return self.requests / self.cpu_s if self.cpu_s else float("nan")

    @property
    def cpu_ms(self) -> float:
        """CPU time of one request."""
        return self.cpu_s / max(1, self.requests) * 1000


@dataclass(slots=True)
class Results:
    """Samples by server and load, in the order of the rounds."""

    samples: dict[tuple[str, LoadShape], list[Sample]] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    other_work: list[float] = field(default_factory=list)

    def get(self, server: str, shape: LoadShape) -> list[Sample]:
        """The samples of a server under a load; empty when it was not measured."""
        return self.samples.get((server, shape), [])

    def of(self, server: str) -> list[Sample]:
        """All samples of a server, by time."""
        found = [
            s for (name, _), samples in self.samples.items() if name == server for s in samples
        ]
        return sorted(found, key=lambda sample: sample.at_s)

    def added(self, server: str, shape: LoadShape, what: Measured, share: str) -> list[float]:
        """Per round: this percentile less the direct run's, in milliseconds."""
        pairs = zip(self.get(server, shape), self.get(DIRECT, shape), strict=False)
        return [
            getattr(proxied, what)[share] - getattr(direct, what)[share]
            for proxied, direct in pairs
            if getattr(proxied, what) and getattr(direct, what)
        ]

    def as_json(self) -> list[dict[str, Any]]:
        """Every sample."""
        return [
            {"server": server, "load": asdict(shape), "samples": [asdict(s) for s in samples]}
            for (server, shape), samples in self.samples.items()
        ]


@dataclass(frozen=True, slots=True)
class Target:
    """What is measured: a proxy, or none.

    Attributes:
        proxy: None for the direct way to ``port``.
        key: sent as a bearer token.
    """

    name: str
    proxy: Server | None
    port: int
    key: str


class Bench:
    """One client and one upstream, for all targets in turn."""

    def __init__(self, client: Worker, upstream: Server, pieces: int) -> None:
        self.results = Results()
        self._client = client
        self._upstream = upstream
        self._pieces = pieces
        self._other = OtherWork()
        self._begin = time.monotonic()

    def measure(
        self, target: Target, shape: LoadShape, seconds: float, seed: int, *, keep: bool
    ) -> Sample:
        """Put one load on one target, all other proxies being frozen; raises WorkerError."""
        proxy = target.proxy
        if proxy is not None:
            proxy.thaw()
        try:
            warm_up = LoadShape(shape.stream, connections=WARM_UP_CONNECTIONS)
            warmed = self._load(target, warm_up, WARM_UP_S, 0)
            self._other.start()
            upstream_s = self._upstream.cpu_s()
            cpu_s = proxy.cpu_s() if proxy is not None else 0.0
            found = self._load(target, shape, seconds, seed)
            cpu_s = proxy.cpu_s() - cpu_s if proxy is not None else 0.0
            upstream_s = self._upstream.cpu_s() - upstream_s
            self._other.stop()
            memory = memory_mb(proxy) if proxy is not None else 0.0
        finally:
            if proxy is not None:
                proxy.freeze()
        sent = sum(answer["requests"] + answer["faults"] for answer in (warmed, found))
        sample = Sample(
            cpu_s=cpu_s,
            load_core_s=found.pop("load_cpu_s") + upstream_s,
            memory_mb=memory,
            at_s=time.monotonic() - self._begin,
            sent=sent,
            **found,
        )
        results = self.results
        results.sent[target.name] = results.sent.get(target.name, 0) + sent
        results.other_work = self._other.shares
        if keep:
            results.samples.setdefault((target.name, shape), []).append(sample)
        return sample

    def _load(self, target: Target, shape: LoadShape, seconds: float, seed: int) -> dict[str, Any]:
        pace = {"rate": shape.rate} if shape.rate else {"connections": shape.connections}
        command = {
            "op": "load",
            "host": "127.0.0.1",
            "port": target.port,
            "key": target.key,
            "stream": shape.stream,
            "pieces": self._pieces,
            "seconds": seconds,
            "seed": seed,
            **pace,
        }
        return self._client.ask(command, CLIENT_TIMEOUT_S + seconds)
