"""Two runs side by side: each figure, the difference, and whether it is more than noise."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from gateway.bench.bootstrap import Sample, Statistic, interval
from gateway.bench.errors import BenchError

Json = dict[str, Any]

STRETCHES = 24
FEWEST_IN_TAIL = 5
WHOLE = "whole run"
_DETAIL = ("start_times", "ttfts", "itls", "latencies", "output_lens", "errors")
_MEASURES = ("ttft", "itl", "tpot", "e2el")
_STATISTICS = {"mean": None, "median": 50.0, "p95": 95.0, "p99": 99.0}


@dataclass(slots=True)
class Cluster:
    """A round, or a stretch of time. Times in milliseconds by measure."""

    seconds: float
    requests: int = 0
    tokens: int = 0
    values: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _MEASURES})


def compare(a: Json, b: Json) -> list[Json]:
    """One section per stage that both runs have, else one of the whole runs.

    Each section has ``stage``, ``method`` and ``rows``; each row ``name``, ``a``, ``b``,
    ``difference`` (b - a), ``percent``, ``low`` and ``high`` (95 % of the difference, or None) and
    ``verdict``: higher, lower, within noise, too few values, or unknown.
    """
    stages = [stage for stage in _stage_names(a) if stage in _stage_names(b)]
    sections = stages if len(stages) > 1 and len(stages) == len(_stage_names(a)) else [None]
    return [_section(a, b, stage) for stage in sections]


def read_runs(path: Path) -> list[Json]:
    """The runs that a file of ``bench --out`` or ``vllm bench serve`` holds. Raises BenchError."""
    try:
        document = orjson.loads(path.read_bytes())
    except OSError as error:
        raise BenchError(f"{path} cannot be read: {error.strerror}") from None
    except orjson.JSONDecodeError as error:
        raise BenchError(f"{path} is not JSON: {error}") from None
    runs = document.get("runs", [document]) if isinstance(document, dict) else []
    if not runs or not all(isinstance(run, dict) and "completed" in run for run in runs):
        raise BenchError(f"{path} is no result of llm-gateway bench or vllm bench serve")
    for run in runs:
        lengths = {len(run[name]) for name in _DETAIL if isinstance(run.get(name), list)}
        if len(lengths) > 1:
            raise BenchError(f"{path} is damaged: its lists of requests differ in length")
    return list(runs)


def _section(a: Json, b: Json, stage: str | None) -> Json:
    together = a.get("run") is not None and a.get("run") == b.get("run")
    paired = together and _rounds(a) == _rounds(b) > 1
    clusters_a, clusters_b = _clusters(a, stage, paired), _clusters(b, stage, paired)
    rows = [
        _row(*figure, paired=paired) for figure in _figures(a, b, stage, clusters_a, clusters_b)
    ]
    method = "no requests in the files: no intervals"
    if clusters_a and clusters_b:
        method = (
            f"bootstrap over {len(clusters_a)} rounds in turns"
            if paired
            else f"bootstrap over {len(clusters_a)} and {len(clusters_b)} stretches of time"
        )
    return {"stage": stage or WHOLE, "method": method, "rows": rows}


def _figures(
    a: Json, b: Json, stage: str | None, clusters_a: list[Cluster], clusters_b: list[Cluster]
) -> Iterator[tuple[str, Any, Any, _Measured | None, _Measured | None]]:
    figures_a, figures_b = _figures_of(a, stage), _figures_of(b, stage)
    for name, attribute in (("request_throughput", "requests"), ("output_throughput", "tokens")):
        yield (
            name,
            figures_a.get(name),
            figures_b.get(name),
            _per_second(clusters_a, attribute),
            _per_second(clusters_b, attribute),
        )
    for measure in _MEASURES:
        samples = [
            Sample.of([cluster.values[measure] for cluster in clusters]) if clusters else None
            for clusters in (clusters_a, clusters_b)
        ]
        for statistic, percent in _STATISTICS.items():
            name = f"{statistic}_{measure}_ms"
            if name in figures_a and name in figures_b:
                yield (
                    name,
                    figures_a.get(name),
                    figures_b.get(name),
                    _statistic(samples[0], percent),
                    _statistic(samples[1], percent),
                )


@dataclass(frozen=True, slots=True)
class _Measured:
    """A statistic as a function of the weights of clusters."""

    of: Statistic
    clusters: int
    enough: bool


def _statistic(sample: Sample | None, percent: float | None) -> _Measured | None:
    if sample is None or not sample.size:
        return None
    if percent is None:
        return _Measured(sample.mean, sample.clusters, enough=True)
    beyond = sample.size * (1 - percent / 100)
    return _Measured(
        lambda weights: sample.percentile(weights, percent),
        sample.clusters,
        enough=beyond >= FEWEST_IN_TAIL,
    )


def _per_second(clusters: list[Cluster], attribute: str) -> _Measured | None:
    if not clusters:
        return None
    counts = np.array([float(getattr(cluster, attribute)) for cluster in clusters])
    seconds = np.array([cluster.seconds for cluster in clusters])
    return _Measured(
        lambda weights: (weights @ counts) / (weights @ seconds), len(clusters), enough=True
    )


def _row(
    name: str,
    a: Any,
    b: Any,
    measured_a: _Measured | None,
    measured_b: _Measured | None,
    *,
    paired: bool,
) -> Json:
    row: Json = {"name": name, "a": a, "b": b, "difference": None, "percent": None}
    row |= {"low": None, "high": None, "verdict": "unknown"}
    if not _is_number(a) or not _is_number(b):
        return row
    row["difference"] = b - a
    row["percent"] = (b - a) / a * 100 if a else None
    if measured_a is None or measured_b is None:
        return row
    if not (measured_a.enough and measured_b.enough):
        return row | {"verdict": "too few values"}
    found = interval(
        measured_a.of, measured_b.of, measured_a.clusters, measured_b.clusters, paired=paired
    )
    if found is None:
        return row
    low, high = found
    verdict = "higher" if low > 0 else "lower" if high < 0 else "within noise"
    return row | {"low": low, "high": high, "verdict": verdict}


def _clusters(run: Json, stage: str | None, by_round: bool) -> list[Cluster]:
    """Rounds, or equal stretches of time; none when the file holds no single requests."""
    if not all(isinstance(run.get(name), list) for name in _DETAIL) or not run["start_times"]:
        return []
    spans = [
        (part["began"], part["ended"], part["round"])
        for part in run.get("stages", [])
        if stage is None or part["name"] == stage
    ]
    starts, ends = run["start_times"], run["start_times"]
    ends = [start + latency for start, latency in zip(starts, run["latencies"], strict=True)]
    spans = spans or [(min(starts), max(ends), 0)]
    if by_round:
        rounds = sorted({round_ for *_, round_ in spans})
        edges = [[(low, high) for low, high, which in spans if which == r] for r in rounds]
    else:
        pieces = max(1, min(STRETCHES, run["completed"]) // len(spans))
        edges = [
            [(low + (high - low) * k / pieces, low + (high - low) * (k + 1) / pieces)]
            for low, high, _ in spans
            for k in range(pieces)
        ]
    clusters = [Cluster(sum(high - low for low, high in parts) or 1e-9) for parts in edges]
    finder = sorted((low, high, n) for n, parts in enumerate(edges) for low, high in parts)
    _fill(clusters, finder, run)
    return clusters


def _fill(clusters: list[Cluster], finder: list[tuple[float, float, int]], run: Json) -> None:
    lows = [low for low, _, _ in finder]

    def owner(at: float) -> Cluster | None:
        place = bisect_right(lows, at) - 1
        if place < 0 or at > finder[place][1]:
            return None
        return clusters[finder[place][2]]

    columns = zip(*(run[name] for name in _DETAIL), strict=True)
    for start, ttft, itls, latency, tokens, error in columns:
        if error or (cluster := owner(start)) is None:
            continue
        cluster.values["ttft"].append(ttft * 1000)
        cluster.values["e2el"].append(latency * 1000)
        cluster.values["itl"] += [gap * 1000 for gap in itls]
        if tokens > 1:
            cluster.values["tpot"].append((latency - ttft) / (tokens - 1) * 1000)
        if (last := owner(start + latency)) is not None:
            last.requests += 1
        at = start + ttft
        for number, gap in enumerate([0.0, *itls]):
            at += gap
            if (when := owner(at)) is not None:
                when.tokens += 1 if number else max(0, tokens - len(itls))


def _figures_of(run: Json, stage: str | None) -> Json:
    """The figures of a run, or of its stage over all rounds."""
    if stage is None:
        return run
    parts = [part for part in run["stages"] if part["name"] == stage]
    if len(parts) == 1:
        return dict(parts[0])
    return dict(run.get("figures_by_stage", {}).get(stage, {}))


def _stage_names(run: Json) -> list[str]:
    return list(dict.fromkeys(stage["name"] for stage in run.get("stages", [])))


def _rounds(run: Json) -> int:
    return len({stage["round"] for stage in run.get("stages", [])})


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
