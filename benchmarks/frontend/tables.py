"""From samples to Markdown tables and the goals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.frontend.measure import Results, Sample, Shape, middle, percentile, ratios
from benchmarks.report import DISTURBED, Goal, spread, table

GATEWAY, VLLM, FAKE = "gateway", "vllm serve", "gateway, fake engine"
RATIO_GOAL = 0.5
ADDED_TTFT_GOAL_MS = 2.0
RATE_GOAL = 50_000
PROFILE_ROWS = 25

Measure = Callable[[Sample], float]


def values(samples: list[Sample], of: Measure) -> list[float]:
    """One number per sample."""
    return [of(sample) for sample in samples]


def beside_table(results: Results, shapes: list[Shape]) -> str:
    """The gateway next to ``vllm serve``."""
    rows = []
    for shape in shapes:
        ours, theirs = results.get(GATEWAY, shape), results.get(VLLM, shape)
        if not ours or not theirs:
            continue
        unit, of = measure_of(shape)
        share = ratios(values(ours, of), values(theirs, of))
        for name, samples in ((GATEWAY, ours), (VLLM, theirs)):
            rows.append(
                [
                    str(shape.streams),
                    unit,
                    name,
                    spread(values(samples, of)),
                    spread(share) if name == GATEWAY else "",
                    spread(values(samples, lambda s: s.tokens_per_event)),
                    spread(values(samples, lambda s: s.tokens_per_s)),
                    spread(values(samples, lambda s: s.ttft_ms(0.5))),
                ]
            )
    head = ["streams", "CPU of the front end", "server", "", "ratio", "tokens per event", "tok/s"]
    return table([*head, "TTFT p50, ms"], rows)


def measure_of(shape: Shape) -> tuple[str, Measure]:
    """What a load says about the CPU: per request where each has one token only."""
    if shape.per_request:
        return "ms per request", lambda s: s.cpu_ms_per_request
    return "s per 1,000 tokens", lambda s: s.cpu_s_per_1000_tokens


def fake_table(results: Results, shapes: list[Shape]) -> str:
    """The gateway with an engine that costs next to nothing."""
    rows = []
    for shape in shapes:
        samples = results.get(FAKE, shape)
        if not samples:
            continue
        sustained: Measure = lambda s: s.tokens_per_cpu_s  # noqa: E731
        seen: Measure = lambda s: s.tokens_per_s  # noqa: E731
        if shape.per_request:
            sustained, seen = lambda s: s.requests_per_cpu_s, lambda s: s.requests / s.seconds
        rows.append(
            [
                str(shape.streams),
                "requests/s" if shape.per_request else "tokens/s",
                spread(values(samples, sustained)),
                spread(values(samples, seen)),
                spread(values(samples, lambda s: s.tokens_per_event)),
                spread(values(samples, lambda s: s.ttft_ms(0.5))),
                spread(values(samples, lambda s: s.ttft_ms(0.99))),
            ]
        )
    head = ["streams", "", "per CPU second", "as the clock goes", "tokens per event"]
    return table([*head, "TTFT p50, ms", "TTFT p99, ms"], rows)


def goals(results: Results, shapes: list[Shape], fake_shapes: list[Shape]) -> list[Goal]:
    """What was aimed at, and what was reached."""
    found = []
    for shape in shapes:
        if shape.per_request:
            continue
        ours, theirs = results.get(GATEWAY, shape), results.get(VLLM, shape)
        _, of = measure_of(shape)
        share = ratios(values(ours, of), values(theirs, of)) if ours and theirs else []
        what = f"CPU per token, {shape.streams} streams: gateway / vllm serve"
        reached = middle(share) <= RATIO_GOAL if share else None
        found.append(Goal(what, f"≤ {RATIO_GOAL}", spread(share) if share else "–", reached))
    fake_tokens = [shape for shape in fake_shapes if not shape.per_request]
    rates = [
        middle(values(samples, lambda s: s.tokens_per_cpu_s))
        for shape in fake_tokens
        if (samples := results.get(FAKE, shape))
    ]
    best = max(rates, default=float("nan"))
    what = "fake engine: streamed tokens/s of one core, best number of streams"
    reached = best >= RATE_GOAL if rates else None
    found.append(Goal(what, f"≥ {RATE_GOAL:,}", f"{best:,.0f}" if rates else "–", reached))
    alone = [s for shape in fake_tokens if shape.streams == 1 for s in results.get(FAKE, shape)]
    added = [value for sample in alone for value in sample.ttft_s]
    ttft = percentile(added, 0.5) * 1000 if added else float("nan")
    reached = ttft <= ADDED_TTFT_GOAL_MS if added else None
    what = "added TTFT p50, one stream, ms (the fake engine answers at once)"
    shown = f"{ttft:.2f}" if added else "–"
    found.append(Goal(what, f"≤ {ADDED_TTFT_GOAL_MS:.0f}", shown, reached))
    return found


def disturbance(results: Results) -> str:
    """How much of the machine other programs had."""
    share = middle(results.other_work)
    text = f"Other programs had {share:.0%} of the CPU time (median over the measurements)."
    if share > DISTURBED:
        text += " **That is too much: times by the clock and TTFT are not to be trusted.**"
    return text


def profile_table(file: Path) -> str:
    """Where the time goes: by package, then by function."""
    found: dict[str, Any] = json.loads(file.read_text())
    samples = max(1, found["samples"])
    parts: dict[str, int] = {}
    for entry in found["functions"]:
        part = part_of(entry["file"])
        parts[part] = parts.get(part, 0) + entry["self"]
    ranked = sorted(parts.items(), key=lambda item: -item[1])
    by_part = table(
        ["part", "share of CPU"], [[part, f"{count / samples:.1%}"] for part, count in ranked[:12]]
    )
    functions = sorted(found["functions"], key=lambda entry: -entry["self"])[:PROFILE_ROWS]
    rows = [
        [
            f"`{entry['function']}`",
            entry["file"],
            f"{entry['self'] / samples:.1%}",
            f"{entry['total'] / samples:.1%}",
        ]
        for entry in functions
    ]
    by_function = table(["function", "file", "itself", "with what it calls"], rows)
    return f"{samples} samples\n\n{by_part}\n\n{by_function}"


def part_of(file: str) -> str:
    """The package of this project, or the library, that a file belongs to."""
    names = file.split("/")
    if names[0] in ("gateway", "engine", "benchmarks"):
        return "/".join(names[:2])
    return names[0]
