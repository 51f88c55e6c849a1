"""From samples to Markdown tables and the goals."""

from __future__ import annotations

from statistics import median
from typing import get_args

from benchmarks.frontend.measure import middle, ratios
from benchmarks.proxy.measure import DIRECT, SHARES, LoadShape, Measured, Results, Sample
from benchmarks.proxy.servers import GATEWAY, LITELLM
from benchmarks.report import DISTURBED, Goal, number, spread, table

P50_GOAL_MS = 1.5
P99_GOAL_MS = 10.0
RATIO_GOAL = 20.0
MEMORY_GOAL_MB = 150.0
# Of the memory after the first round.
GROWTH_GOAL = 0.05
# Client and upstream must not be what limits a proxy.
BUSY = 0.8
TITLES: dict[Measured, str] = {
    "total_ms": "whole answer",
    "ttft_ms": "first piece",
    "piece_ms": "each piece",
}


def latency_table(results: Results, shapes: list[LoadShape]) -> str:
    """What each proxy adds to each percentile of the direct run."""
    rows = []
    for shape in shapes:
        for server in (GATEWAY, LITELLM):
            samples = results.get(server, shape)
            for what in get_args(Measured) if samples else ():
                added = [results.added(server, shape, what, share) for share in SHARES]
                if not added[0]:
                    continue
                direct = [getattr(s, what)["p50"] for s in results.get(DIRECT, shape)]
                rows.append(
                    [
                        f"{shape.rate:g}",
                        shape.kind,
                        server,
                        TITLES[what],
                        *(spread(values) for values in added),
                        spread(direct),
                        spread([s.cpu_ms for s in samples]),
                        failed(samples),
                    ]
                )
    head = ["requests/s", "answers", "proxy", "added, ms", "p50", "p95", "p99"]
    return table([*head, "direct p50", "CPU ms per request", "failed"], rows)


def failed(samples: list[Sample]) -> str:
    """Requests that were not answered as they should, of all."""
    faults = sum(s.faults for s in samples)
    return f"{faults} of {faults + sum(s.requests for s in samples)}"


def best(results: Results, server: str, ramp: list[LoadShape]) -> LoadShape | None:
    """The step of a ramp at which a server pays least for a request."""
    steps = [shape for shape in ramp if results.get(server, shape)]
    return max(
        steps,
        key=lambda shape: middle([s.per_cpu_s for s in results.get(server, shape)]),
        default=None,
    )


def ramp_table(results: Results, ramp: list[LoadShape]) -> str:
    """Every step."""
    rows = []
    for shape in ramp:
        for server in (GATEWAY, LITELLM):
            samples = results.get(server, shape)
            if not samples:
                continue
            busy = median(s.load_core_s / s.seconds for s in samples)
            rows.append(
                [
                    shape.kind,
                    str(shape.connections),
                    server,
                    spread([s.per_s for s in samples]),
                    spread([s.per_cpu_s for s in samples]),
                    spread([s.cpu_ms for s in samples]),
                    spread([s.total_ms["p50"] for s in samples if s.total_ms]),
                    f"{busy:.0%}" + (" (limits)" if busy > BUSY else ""),
                    failed(samples),
                ]
            )
    head = ["answers", "connections", "proxy", "requests/s", "per CPU second"]
    return table([*head, "CPU ms per request", "p50, ms", "load core busy", "failed"], rows)


def memory_table(results: Results) -> str:
    """Resident memory over the run."""
    rows = []
    for server in (GATEWAY, LITELLM):
        samples = results.of(server)
        if samples:
            values = [s.memory_mb for s in samples]
            rows.append(
                [
                    server,
                    number(values[0]),
                    number(max(values)),
                    number(values[-1]),
                    f"{results.sent[server]:,}",
                ]
            )
    return table(["proxy", "first, MB", "largest", "last", "requests sent to it"], rows)


def goals(
    results: Results, open_shapes: list[LoadShape], ramp: list[LoadShape], recorded: int | None
) -> list[Goal]:
    """What was aimed at, and what was reached."""
    found = []
    top = max(shape.rate for shape in open_shapes)
    for shape in (shape for shape in open_shapes if shape.rate == top):
        what: Measured = "ttft_ms" if shape.stream else "total_ms"
        part = "first piece of a stream" if shape.stream else "answer in one piece"
        for share, wanted in (("p50", P50_GOAL_MS), ("p99", P99_GOAL_MS)):
            added = results.added(GATEWAY, shape, what, share)
            reached = middle(added) <= wanted if added else None
            text = f"added {share} at {shape.rate:g} requests/s, {part}, ms"
            found.append(Goal(text, f"≤ {wanted:g}", spread(added), reached))
    for stream in (False, True):
        steps = [shape for shape in ramp if shape.stream == stream]
        ours, theirs = best(results, GATEWAY, steps), best(results, LITELLM, steps)
        times: list[float] = []
        if ours and theirs:
            times = ratios(
                [s.per_cpu_s for s in results.get(GATEWAY, ours)],
                [s.per_cpu_s for s in results.get(LITELLM, theirs)],
            )
        kind = LoadShape(stream).kind
        reached = middle(times) >= RATIO_GOAL if times else None
        text = f"requests/s per core, gateway / LiteLLM, {kind}"
        found.append(Goal(text, f"≥ {RATIO_GOAL:g}", spread(times), reached))
    memory = results.of(GATEWAY)
    largest = max((s.memory_mb for s in memory), default=float("nan"))
    reached = largest < MEMORY_GOAL_MB if memory else None
    found.append(Goal("resident memory, MB", f"< {MEMORY_GOAL_MB:g}", number(largest), reached))
    found.append(flat(results))
    faults = sum(s.faults for s in memory)
    found.append(Goal("requests that the gateway failed", "0", str(faults), not faults))
    sent = results.sent.get(GATEWAY)
    equal = None if recorded is None or sent is None else recorded == sent
    got = "–" if recorded is None else f"{recorded:,}"
    found.append(Goal("requests in the ledger", f"{sent or 0:,}, as sent", got, equal))
    return found


def flat(results: Results) -> Goal:
    """Whether memory still grows after the first round."""
    peaks = [max(values) for values in zip(*by_round(results), strict=False)]
    growth = peaks[-1] / peaks[0] - 1 if len(peaks) > 1 else float("nan")
    reached = growth <= GROWTH_GOAL if len(peaks) > 1 else None
    got = f"{growth:+.1%}" if len(peaks) > 1 else "–"
    return Goal("memory, last round against the first", f"≤ +{GROWTH_GOAL:.0%}", got, reached)


def by_round(results: Results) -> list[list[float]]:
    """The gateway's memory after each load, one list per load."""
    return [
        [s.memory_mb for s in samples]
        for (name, _), samples in results.samples.items()
        if name == GATEWAY
    ]


def disturbance(results: Results) -> str:
    """How much of the machine other programs had."""
    share = middle(results.other_work)
    text = f"Other programs had {share:.0%} of the CPU time (median over the measurements)."
    if share > DISTURBED:
        text += " **That is too much: only CPU times per request are to be trusted.**"
    return text
