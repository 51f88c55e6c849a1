"""From the samples of all rounds to one line of the table."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over rounds."""

    median: float
    min: float
    max: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Of all runs of all rounds, in milliseconds: one run of a graph, one decode step."""

    median: float
    p95: float
    p99: float
    runs: int


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration, measured.

    Attributes:
        asked, ran_on: execution providers; ``reason`` says why they differ.
        placed: nodes that each provider ran; a part that a provider fused counts as one.
        throughput: per second: ``samples`` of a graph, decoded ``tokens`` of a decoder, all
            sequences of the batch together.
        prefill: tokens per second of one prompt; decoders only.
        cpu_ms, prefill_cpu_ms: CPU time of one run (of one prefill), all threads together. On a
            machine that is busy with other things it changes less than the latency does.
        peak_rss_mib: largest resident memory of the process, Python and onnxruntime included.
        onnxruntime: version, which differs between providers' builds.
        error: what went wrong instead.
    """

    model: str
    path: str
    size_bytes: int
    asked: str
    ran_on: str
    reason: str
    placed: dict[str, int]
    threads: int
    batch: int
    unit: Literal["samples", "tokens"]
    latency_ms: Latency | None = None
    throughput: Spread | None = None
    prefill: Spread | None = None
    cpu_ms: Spread | None = None
    prefill_cpu_ms: Spread | None = None
    peak_rss_mib: float | None = None
    load_s: float | None = None
    onnxruntime: str = ""
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        """For ``--json`` and ``--out``."""
        return dataclasses.asdict(self)


def summarise(
    samples: Sequence[dict[str, Any]],
    *,
    model: str,
    path: str,
    size_bytes: int,
    asked: str,
    ran_on: str,
    reason: str,
    placed: dict[str, int],
    threads: int,
    batch: int,
    decoder: bool,
    prompt: int,
) -> Row:
    """The row of one configuration; a round that failed makes it an error."""
    row = Row(
        model=model,
        path=path,
        size_bytes=size_bytes,
        asked=asked,
        ran_on=ran_on,
        reason=reason,
        placed=placed,
        threads=threads,
        batch=batch,
        unit="tokens" if decoder else "samples",
    )
    errors = [sample["error"] for sample in samples if "error" in sample]
    if errors:
        return dataclasses.replace(row, error=errors[0])
    every = np.concatenate([sample["latencies_ms"] for sample in samples])
    median, p95, p99 = (round(float(v), 4) for v in np.percentile(every, (50, 95, 99)))
    rates = [batch * 1e3 / float(np.mean(sample["latencies_ms"])) for sample in samples]
    prefills = [
        prompt * 1e3 / statistics.median(sample["prefills_ms"])
        for sample in samples
        if "prefills_ms" in sample
    ]
    memory = [sample["peak_rss_mib"] for sample in samples if sample["peak_rss_mib"] is not None]
    return dataclasses.replace(
        row,
        latency_ms=Latency(median, p95, p99, len(every)),
        throughput=_spread(rates),
        prefill=_spread(prefills) if prefills else None,
        cpu_ms=_spread([sample["cpu_ms"] for sample in samples]),
        prefill_cpu_ms=(
            _spread([sample["prefill_cpu_ms"] for sample in samples]) if prefills else None
        ),
        peak_rss_mib=max(memory, default=None),
        load_s=round(statistics.median(sample["load_s"] for sample in samples), 4),
        onnxruntime=samples[0]["onnxruntime"],
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(round(statistics.median(values), 4), round(min(values), 4), round(max(values), 4))
