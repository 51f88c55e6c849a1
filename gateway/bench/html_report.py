"""A run as one HTML file that needs nothing else: no script, no font, no network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from gateway.bench.svg import Series, histogram, legend, over_time
from gateway.bench.tables import (
    compared_rows,
    count_rows,
    error_rows,
    shown,
    spread_rows,
    stage_rows,
)

Json = dict[str, Any]

_STYLE = """
:root{color-scheme:light dark;--s0:#2563eb;--s1:#d97706;--s2:#059669;--s3:#9333ea}
body{font:15px/1.5 system-ui,sans-serif;max-width:84rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.15rem .8rem;text-align:right}
td:first-child,th:first-child{text-align:left}tr:nth-child(even){background:#8881}
th{border-bottom:1px solid #888}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(24rem,1fr));gap:1.5rem}
figure{margin:0}figcaption{font-weight:600}svg{width:100%;height:auto}
.grid{stroke:#8884}.tick,.unit,.small{font-size:11px;fill:currentColor;opacity:.75}
.mark{stroke:currentColor;stroke-dasharray:3 3;opacity:.5}
.line{fill:none;stroke-width:1.6}.area{fill-opacity:.18;stroke-width:1.4}
.s0{stroke:var(--s0)}.s1{stroke:var(--s1)}.s2{stroke:var(--s2)}.s3{stroke:var(--s3)}
.area.s0{fill:var(--s0)}.area.s1{fill:var(--s1)}.area.s2{fill:var(--s2)}.area.s3{fill:var(--s3)}
.key{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em;border-radius:2px}
.k0{background:var(--s0)}.k1{background:var(--s1)}.k2{background:var(--s2)}.k3{background:var(--s3)}
.warn{border-left:4px solid var(--s1);padding-left:.8rem}
"""


def html_report(runs: Sequence[Json], comparison: Sequence[Json], *, interrupted: bool) -> str:
    """The whole page.

    Args:
        runs: documents as ``result.document`` makes them, at most four.
        comparison: sections as ``compare.compare`` makes them; empty for a single run.
    """
    names = [run["label"] for run in runs]
    body = [f"<h1>{escape(' and '.join(names))}</h1>", *_opening(runs, interrupted)]
    body.append(_table(["", *names], count_rows(runs)))
    for run in runs:
        head, rows = spread_rows(run)
        body.append(_table([f"{run['label']}: {head[0]}", *head[1:]], rows))
    for section in comparison:
        body.append(f"<h2>Compared: {escape(section['stage'])}</h2>")
        body.append(f"<p>95 % intervals of the difference, {escape(section['method'])}.</p>")
        body.append(
            _table(["", *names[:2], "difference", "95 % interval", ""], compared_rows(section))
        )
    body.append(f'<p>{legend(names)}</p><div class="plots">{"".join(_plots(runs))}</div>')
    for run in runs:
        if len(run["stages"]) > 1:
            body.append(f"<h2>Stages: {escape(run['label'])}</h2>")
            head, rows = stage_rows(run)
            body.append(_table(head, rows))
        if run["errors_by_kind"]:
            body.append(f"<h2>Errors: {escape(run['label'])}</h2>")
            body.append(_table(*error_rows(run)))
    body.append(f"<h2>The generator itself</h2>{_generator(runs[0]['generator'])}")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Benchmark: {escape(', '.join(names))}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _opening(runs: Sequence[Json], interrupted: bool) -> Iterator[str]:
    for run in runs:
        load = (
            f"{run['max_concurrency']} at once"
            if run["request_rate"] == "inf"
            else f"request rate {run['request_rate']}"
        )
        yield (
            f"<p>{escape(run['label'])}: model {escape(run['model_id'])} at"
            f" {escape(run['base_url'])}, {escape(run['backend'])}, {escape(load)},"
            f" {escape(run['date'])}</p>"
        )
    remarks = [
        *runs[0]["generator"].get("warnings", []),
        *(n for run in runs for n in run["notes"]),
    ]
    if interrupted:
        remarks.insert(0, "the run was ended early: these are the results until then")
    for remark in remarks:
        yield f'<p class="warn">{escape(remark)}</p>'


def _plots(runs: Sequence[Json]) -> Iterator[str]:
    def good(run: Json, name: str) -> list[float]:
        values = zip(run[name], run["errors"], strict=True)
        return [value * 1000 for value, error in values if not error]

    def gaps(run: Json) -> list[float]:
        parts = zip(run["itls"], run["errors"], strict=True)
        return [gap * 1000 for itls, error in parts if not error for gap in itls]

    drawn = (
        ("Time to first token", [Series(run["label"], good(run, "ttfts")) for run in runs]),
        ("Inter-token latency", [Series(run["label"], gaps(run)) for run in runs]),
        ("End-to-end latency", [Series(run["label"], good(run, "latencies")) for run in runs]),
    )
    for title, series in drawn:
        yield _figure(title, histogram(title, "milliseconds", series))
    tokens = [Series(run["label"], *run["timeline"]["output_tokens_per_s"]) for run in runs]
    yield _figure(
        "Output tokens per second",
        over_time("Output tokens per second", "tokens/s", tokens, steps=False),
    )
    running = [Series(run["label"], *run["timeline"]["running_requests"]) for run in runs]
    yield _figure(
        "Requests running", over_time("Requests running", "requests", running, steps=True)
    )


def _figure(title: str, picture: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{picture}</figure>"


def _generator(report: Json) -> str:
    rows = [[name, shown(value)] for name, value in report.items() if isinstance(value, float)]
    added = report.get("added", {})
    rows += [[f"added: {name}", shown(value)] for name, value in added.items()]
    return _table(["", ""], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
