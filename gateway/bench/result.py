"""The document of a run: field names of ``vllm bench serve``, and a few of our own."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from gateway.bench.load import StageRun
from gateway.bench.metrics import errors_by_kind, figures, running_over_time, tokens_over_time
from gateway.bench.options import BenchOptions
from gateway.bench.outcome import Outcome
from gateway.bench.target import Target

Json = dict[str, Any]

MOST_BUCKETS = 400
_WIDTHS_S = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 1e9)


def document(
    options: BenchOptions, target: Target, runs: Sequence[StageRun], generator: Json, run_id: str
) -> Json:
    """All that is known of the load on one server, as JSON holds it.

    Lists have one entry per request in the order of sending, failed ones included: seconds, 0
    for what never came, and an empty text in ``errors`` for what went well.
    """
    outcomes = sorted((o for run in runs for o in run.outcomes), key=lambda outcome: outcome.start)
    rate: Any = _one_or_many(options.rates) if options.rates else "inf"
    return {
        "date": datetime.now().astimezone().strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": "openai-chat" if options.endpoint == "chat" else "openai",
        "backend": "openai-chat" if options.endpoint == "chat" else "openai",
        "label": options.label or target.server.name,
        "base_url": target.url,
        "model_id": target.model,
        "tokenizer_id": None,
        "num_prompts": len(outcomes),
        "request_rate": "trace" if options.trace is not None else rate,
        "burstiness": options.burstiness,
        "max_concurrency": _one_or_many(sorted({run.concurrency or 0 for run in runs})) or None,
        "seed": options.seed,
        "run": run_id,
        **figures(runs, options.percentiles, options.objectives),
        "goodput": options.objectives,
        "errors_by_kind": errors_by_kind(outcomes),
        "token_counts": "usage" if all(o.counted for o in outcomes if o.good) else "events",
        "wished_input_tokens": sum(
            wished
            for run in runs
            for wished, outcome in zip(run.wished, run.outcomes, strict=True)
            if outcome.good
        ),
        "generator": generator,
        "timeline": timeline(outcomes),
        "notes": target.notes,
        "stages": [stage_document(run, options) for run in runs],
        "figures_by_stage": {
            name: figures(
                [run for run in runs if run.stage == name], options.percentiles, options.objectives
            )
            for name in dict.fromkeys(run.stage for run in runs)
        },
        "input_lens": [outcome.input_tokens for outcome in outcomes],
        "output_lens": [outcome.output_tokens if outcome.good else 0 for outcome in outcomes],
        "ttfts": [outcome.ttft for outcome in outcomes],
        "itls": [outcome.itls() for outcome in outcomes],
        "latencies": [outcome.latency for outcome in outcomes],
        "start_times": [outcome.start for outcome in outcomes],
        "queue_times": [outcome.queue_s for outcome in outcomes],
        "errors": [
            "" if outcome.kind is None else f"{outcome.kind}: {outcome.message}"
            for outcome in outcomes
        ],
    }


def timeline(outcomes: Sequence[Outcome]) -> Json:
    """Output tokens per second and requests on their way, as [seconds, values]."""
    length = max((o.start + o.latency for o in outcomes), default=0.0) - min(
        (o.start for o in outcomes), default=0.0
    )
    width = next(width for width in _WIDTHS_S if length / width <= MOST_BUCKETS)
    at, tokens = tokens_over_time(outcomes, width)
    steps = running_over_time(outcomes)
    return {
        "output_tokens_per_s": [at, [count / width for count in tokens]],
        "running_requests": [[x for x, _ in steps], [y for _, y in steps]],
    }


def stage_document(run: StageRun, options: BenchOptions) -> Json:
    """One stage."""
    return {
        "name": run.stage,
        "round": run.round,
        "request_rate": run.rate if run.rate is not None else "inf",
        "max_concurrency": run.concurrency,
        "began": run.began,
        "ended": run.ended,
        **figures([run], options.percentiles, options.objectives),
        "errors_by_kind": errors_by_kind(run.outcomes),
    }


def _one_or_many(numbers: Sequence[float]) -> Any:
    return numbers[0] if len(numbers) == 1 else list(numbers)
