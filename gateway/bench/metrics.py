"""Figures of a run, with the names and meanings of ``vllm bench serve``.

TTFT is the time from sending to the first token, connecting included; TPOT the mean time per
token after the first, of each request; ITL the times between tokens, of all requests together;
E2EL the time to the last token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from gateway.bench.exchange import INTERRUPTED
from gateway.bench.load import StageRun
from gateway.bench.outcome import Outcome

# Of a request's own gaps: one long gap among many is what TPOT and the tail of ITL are for.
ITL_SHARE = 95.0
MS = 1000.0


def figures(
    runs: Sequence[StageRun], percentiles: Sequence[float], objectives: dict[str, float]
) -> dict[str, Any]:
    """Everything about these stages together.

    Args:
        objectives: milliseconds by ttft, itl, tpot or e2el; a request that meets all is good.
    """
    outcomes = [outcome for run in runs for outcome in run.outcomes]
    completed = [outcome for outcome in outcomes if outcome.good]
    interrupted = sum(outcome.kind == INTERRUPTED for outcome in outcomes)
    seconds = sum(run.seconds for run in runs) or 1e-9
    total_input = sum(outcome.input_tokens for outcome in completed)
    total_output = sum(outcome.output_tokens for outcome in completed)
    result: dict[str, Any] = {
        "duration": seconds,
        "completed": len(completed),
        "failed": len(outcomes) - len(completed) - interrupted,
        "interrupted": interrupted,
        "total_input_tokens": total_input,
        "total_output_tokens": total_output,
        "request_throughput": len(completed) / seconds,
        "request_goodput": None,
        "output_throughput": total_output / seconds,
        "total_token_throughput": (total_input + total_output) / seconds,
        "max_output_tokens_per_s": max((peak_tokens(run.outcomes) for run in runs), default=0.0),
        "max_concurrent_requests": max((most_at_once(run.outcomes) for run in runs), default=0),
    }
    if objectives:
        good = sum(meets(outcome, objectives) for outcome in completed)
        result["request_goodput"] = good / seconds
    for name, values in measures(completed).items():
        result |= spread(name, values, percentiles)
    if any(run.open_loop and run.concurrency for run in runs):
        queued = [outcome.queue_s for outcome in completed]
        whole = [outcome.queue_s + outcome.latency for outcome in completed]
        result |= spread("client_queue_time", queued, percentiles)
        result |= spread("e2el_including_client_queue", whole, percentiles)
    return result


def measures(completed: Sequence[Outcome]) -> dict[str, list[float]]:
    """Seconds by name: one value per request, and one per gap for ITL."""
    return {
        "ttft": [outcome.ttft for outcome in completed],
        "tpot": [outcome.tpot for outcome in completed if outcome.output_tokens > 1],
        "itl": [gap for outcome in completed for gap in outcome.itls()],
        "e2el": [outcome.latency for outcome in completed],
    }


def spread(name: str, seconds: Sequence[float], percentiles: Sequence[float]) -> dict[str, Any]:
    """Mean, median, deviation and percentiles in milliseconds; None where nothing was measured.
    Percentiles are interpolated linearly, as numpy does by default."""
    names = {p: f"p{p:g}_{name}_ms" for p in percentiles}
    keys = [f"mean_{name}_ms", f"median_{name}_ms", f"std_{name}_ms", *names.values()]
    if not seconds:
        return dict.fromkeys(keys)
    values = np.asarray(seconds) * MS
    found = [values.mean(), np.median(values), values.std(), *np.percentile(values, list(names))]
    return {key: float(value) for key, value in zip(keys, found, strict=True)}


def meets(outcome: Outcome, objectives: dict[str, float]) -> bool:
    """Whether a completed request stays within every objective, in milliseconds."""
    itl = 0.0
    if "itl" in objectives and (gaps := outcome.itls()):
        itl = float(np.percentile(gaps, ITL_SHARE))
    measured = {
        "ttft": outcome.ttft,
        "tpot": outcome.tpot,
        "e2el": outcome.latency,
        "itl": itl,
    }
    return all(measured[name] * MS <= limit for name, limit in objectives.items())


def errors_by_kind(outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """How often each kind of failure came, most frequent first, with one message of each."""
    counts = Counter(outcome.kind for outcome in outcomes if outcome.kind is not None)
    examples = {outcome.kind: outcome.message for outcome in outcomes if outcome.kind is not None}
    return {
        kind: {"count": count, "example": examples[kind]} for kind, count in counts.most_common()
    }


def peak_tokens(outcomes: Sequence[Outcome]) -> float:
    """Output tokens in the busiest second, counted from the first request."""
    _, tokens = tokens_over_time(outcomes, 1.0)
    return max(tokens, default=0.0)


def tokens_over_time(
    outcomes: Sequence[Outcome], width_s: float
) -> tuple[list[float], list[float]]:
    """(beginning of each bucket in seconds after the first request, output tokens in it)."""
    if not outcomes:
        return [], []
    origin = min(outcome.start for outcome in outcomes)
    counts: Counter[int] = Counter()
    for outcome in outcomes:
        for at, tokens in outcome.token_events():
            counts[int((at - origin) / width_s)] += tokens
    buckets = range(max(counts, default=-1) + 1)
    return [bucket * width_s for bucket in buckets], [float(counts[bucket]) for bucket in buckets]


def running_over_time(outcomes: Sequence[Outcome]) -> list[tuple[float, int]]:
    """(seconds after the first request, requests on their way from then on)."""
    if not outcomes:
        return []
    origin = min(outcome.start for outcome in outcomes)
    changes = [(outcome.start - origin, 1) for outcome in outcomes]
    # At the same moment, what ends makes room for what begins.
    changes += [(outcome.start + outcome.latency - origin, -1) for outcome in outcomes]
    running = 0
    steps = []
    for at, change in sorted(changes):
        running += change
        steps.append((at, running))
    return steps


def most_at_once(outcomes: Sequence[Outcome]) -> int:
    """The largest number of requests on their way together."""
    return max((running for _, running in running_over_time(outcomes)), default=0)
