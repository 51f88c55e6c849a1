"""Figures as rows of text, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]

_COUNTS = {
    "completed": "requests completed",
    "failed": "failed",
    "interrupted": "interrupted",
    "duration": "duration (s)",
    "total_input_tokens": "input tokens",
    "total_output_tokens": "output tokens",
    "request_throughput": "requests/s",
    "request_goodput": "good requests/s",
    "output_throughput": "output tokens/s",
    "total_token_throughput": "tokens/s, input and output",
    "max_output_tokens_per_s": "most output tokens in a second",
    "max_concurrent_requests": "most requests at once",
}
MEASURES = {
    "ttft": "time to first token",
    "itl": "inter-token latency",
    "tpot": "time per output token",
    "e2el": "end to end",
    "client_queue_time": "wait for a free caller",
    "e2el_including_client_queue": "end to end with that wait",
}
_ONLY_IF_ANY = ("failed", "interrupted")
_WORDY = ("", "for example")
_STYLES = {"within noise": "dim", "higher": "bold", "lower": "bold"}


def shown(value: Any) -> str:
    """A number as people read it; a dash for none."""
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.2f}"
    return str(value)


def count_rows(runs: Sequence[Json]) -> list[list[str]]:
    """Label and value per run."""
    rows = []
    for key, label in _COUNTS.items():
        values = [run.get(key) for run in runs]
        if any(values) if key in _ONLY_IF_ANY else any(value is not None for value in values):
            rows.append([label, *map(shown, values)])
    return rows


def spread_rows(run: Json) -> tuple[list[str], list[list[str]]]:
    """Head and rows: one row per time that was measured, in milliseconds."""
    statistics = [
        key.removesuffix("_ttft_ms")
        for key in run
        if key.endswith("_ttft_ms") and not key.startswith("std_")
    ]
    rows = [
        [label, *(shown(run.get(f"{statistic}_{measure}_ms")) for statistic in statistics)]
        for measure, label in MEASURES.items()
        if f"mean_{measure}_ms" in run
    ]
    return ["milliseconds", *statistics], rows


def stage_rows(run: Json) -> tuple[list[str], list[list[str]]]:
    """Head and rows: one row per stage, over all its rounds."""
    keys = {
        "completed": "completed",
        "failed": "failed",
        "request_throughput": "requests/s",
        "output_throughput": "tokens/s",
        "request_goodput": "good/s",
        "median_ttft_ms": "TTFT p50",
        "p99_ttft_ms": "TTFT p99",
        "median_itl_ms": "ITL p50",
        "p99_itl_ms": "ITL p99",
        "median_e2el_ms": "E2E p50",
        "p99_e2el_ms": "E2E p99",
    }
    stages = run["figures_by_stage"]
    used = {
        key: label
        for key, label in keys.items()
        if any(figures.get(key) is not None for figures in stages.values())
    }
    rows = [[name, *(shown(figures.get(key)) for key in used)] for name, figures in stages.items()]
    return ["stage", *used.values()], rows


def error_rows(run: Json) -> tuple[list[str], list[list[str]]]:
    """Head and rows: one row per kind of failure."""
    kinds = run["errors_by_kind"].items()
    rows = [[kind, str(error["count"]), error["example"]] for kind, error in kinds]
    return ["errors", "requests", "for example"], rows


def compared_rows(section: Json) -> list[list[str]]:
    """Label, both values, difference, interval, verdict."""
    rows = []
    for row in section["rows"]:
        change = "-"
        if row["difference"] is not None:
            percent = "" if row["percent"] is None else f" ({row['percent']:+.1f} %)"
            change = f"{row['difference']:+,.2f}{percent}"
        bounds = "-" if row["low"] is None else f"{row['low']:+,.2f} to {row['high']:+,.2f}"
        name = label_of(row["name"])
        rows.append([name, shown(row["a"]), shown(row["b"]), change, bounds, row["verdict"]])
    return rows


def label_of(name: str) -> str:
    """A field's name in words."""
    if name in _COUNTS:
        return _COUNTS[name]
    for measure, label in MEASURES.items():
        if name.endswith(f"_{measure}_ms"):
            return f"{label}, {name.removesuffix(f'_{measure}_ms')} (ms)"
    return name


def print_summary(console: Console, runs: Sequence[Json], comparison: Sequence[Json]) -> None:
    """Everything that matters, on the terminal."""
    labels = [run["label"] for run in runs]
    _print(console, f"model {runs[0]['model_id']}", ["", *labels], count_rows(runs))
    for run in runs:
        title = run["label"] if len(runs) > 1 else ""
        _print(console, title, *spread_rows(run))
        if len(run["figures_by_stage"]) > 1:
            _print(console, f"stages of {run['label']}, times in ms", *stage_rows(run))
        if run["errors_by_kind"]:
            _print(console, f"errors of {run['label']}", *error_rows(run))
    print_comparison(console, comparison, labels)
    console.print(Text(generator_line(runs[0]["generator"])))


def print_comparison(console: Console, comparison: Sequence[Json], names: Sequence[str]) -> None:
    """One table per section."""
    for section in comparison:
        title = f"{section['stage']}: {names[1]} less {names[0]}; {section['method']}"
        head = ["", *names[:2], "difference", "95 % interval", ""]
        rows = compared_rows(section)
        _print(console, title, head, rows, styles=[_STYLES.get(row[-1], "") for row in rows])


def generator_line(report: Json) -> str:
    """What the generator cost, in one line."""
    per_token = report["cpu_us_per_output_token"]
    parts = [f"{report['cpu_share_of_one_core']:.1%} of a core"]
    if per_token is not None:
        parts.append(f"{per_token:.0f} µs of CPU per output token")
    if report.get("p99_event_loop_lag_ms") is not None:
        parts.append(f"event loop late by {report['p99_event_loop_lag_ms']:.1f} ms (p99)")
    if report.get("p99_send_lateness_ms") is not None:
        parts.append(f"requests sent late by {report['p99_send_lateness_ms']:.1f} ms (p99)")
    added = report.get("added", {})
    for name, label in (("to_ttft", "first tokens"), ("to_each_event", "every event")):
        if added.get(f"median_{name}_ms") is not None:
            median, p99 = added[f"median_{name}_ms"], added[f"p99_{name}_ms"]
            parts.append(f"adds {median:.2f} ms (p99 {p99:.2f}) to {label}")
    return "generator: " + ", ".join(parts)


def _print(
    console: Console,
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    styles: Sequence[str] = (),
) -> None:
    """A table; numbers to the right, words to the left."""
    table = Table(title=title or None, title_justify="left")
    for number, name in enumerate(head):
        words = not number or name in _WORDY
        table.add_column(Text(name), justify="left" if words else "right", overflow="fold")
    for number, row in enumerate(rows):
        table.add_row(*(Text(cell) for cell in row), style=styles[number] if styles else "")
    console.print(table)
