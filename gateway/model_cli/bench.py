"""``llm-gateway model bench``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.terminal import fail

if TYPE_CHECKING:
    from rich.table import Table

    from engine.quantization.rows import Row, Spread
    from engine.quantization.sources import Source

PIPE_WIDTH = 150


def bench_model(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Variants to compare: bundled, checkpoints, hub ids, prepared folders, .onnx."
        ),
    ],
    precision: Annotated[
        str,
        typer.Option(help="Variants of checkpoints: auto, fp32, int8, int8_block, int4, by comma."),
    ] = "auto",
    provider: Annotated[
        str, typer.Option(help="cpu, openvino, cuda, tensorrt, by comma; all: what is here.")
    ] = "all",
    threads: Annotated[str, typer.Option(help="By comma. Absent: the physical cores.")] = "",
    batch: Annotated[str, typer.Option(help="By comma. Absent: 1,8, or the graph's own.")] = "",
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Measurements of each.")] = 3,
    seconds: Annotated[float, typer.Option(min=0.01, max=600, help="Of each measurement.")] = 1.0,
    prompt: Annotated[
        int, typer.Option(min=2, max=100_000, help="Decoders: tokens to prefill.")
    ] = 128,
    tokens: Annotated[
        int, typer.Option(min=1, max=100_000, help="Decoders: tokens to decode.")
    ] = 64,
    dim: Annotated[
        list[str] | None, typer.Option(help="Graphs: size of an open dimension, name=number.")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Install what openvino needs, once.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write everything into this JSON file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure latency, throughput and memory of models on this machine.

    Decoders: decode steps of --batch sequences and the prefill of one prompt,
    as the server runs them. Other graphs: runs on synthetic inputs of the
    graph's own shapes. A provider that is not here is named with the reason,
    and the CPU is measured in its place.

    Examples:

      llm-gateway model bench bundled --precision fp32,int8,int4 --batch 1,16

      llm-gateway model bench rank.onnx ./rank8 --threads 1,2 --out bench.json

      llm-gateway model bench resnet.onnx --dim side=224 \\
        --provider cpu,openvino --install
    """
    import json

    from rich.console import Console

    from engine.base import EngineStartError
    from engine.onnx.hardware import physical_cores
    from engine.quantization.bench import Plan, bench
    from engine.quantization.machine import describe
    from gateway.model_cli.graph_options import read_dims
    from gateway.stage_progress import stage_progress

    try:
        with stage_progress() as say:
            plan = Plan(
                models=tuple(_sources(models, precision.split(","), say)),
                providers=_providers(provider, install=install),
                threads=_numbers("--threads", threads) or (physical_cores(),),
                batches=_numbers("--batch", batch),
                rounds=rounds,
                seconds=seconds,
                prompt=prompt,
                tokens=tokens,
                dims=read_dims(dim or []),
                install=install,
                say=say,
            )
            rows = bench(plan)
    except EngineStartError as error:
        fail(str(error))
    settings = {"rounds": rounds, "seconds": seconds, "prompt": prompt, "tokens": tokens}
    result = {
        "machine": describe(),
        "settings": settings,
        "rows": [row.to_json() for row in rows],
    }
    text = json.dumps(result, indent=2)
    if out is not None:
        try:
            out.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            fail(f"{out} cannot be written ({error.strerror}): the result was:\n{text}")
    if as_json:
        typer.echo(text)
        return
    # A file or a pipe has no width of its own.
    console = Console() if sys.stdout.isatty() else Console(width=PIPE_WIDTH)
    for decoders in (True, False):
        chosen = [row for row in rows if (row.unit == "tokens") == decoders]
        if chosen:
            console.print(_table(chosen, decoders=decoders))
    for note in _notes(rows):
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _sources(models: list[str], precisions: list[str], say: object) -> list[Source]:
    from engine.quantization.sources import measured_sources
    from gateway.model_cli.graph_options import cache_folder

    cache = cache_folder()
    found: list[Source] = []
    for model in models:
        found += measured_sources(model, precisions, cache, say)  # type: ignore[arg-type]
    return found


def _providers(text: str, *, install: bool) -> tuple[str, ...]:
    from engine.quantization.providers import OWN_ENVIRONMENT, here

    if text != "all":
        return tuple(part.strip() for part in text.split(",") if part.strip()) or ("cpu",)
    return tuple(dict.fromkeys((*here(), *(OWN_ENVIRONMENT if install else ()))))


def _numbers(option: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdigit() and 0 < int(part) <= 65_536 for part in parts):
        fail(f"{option} takes numbers from 1 to 65536, such as 1,8, not {text!r}")
    return tuple(int(part) for part in parts)


def _table(rows: list[Row], *, decoders: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = "Decoders: one decode step" if decoders else "Graphs: one run"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", overflow="fold")
    table.add_column("provider", no_wrap=True)
    names = ["threads", "batch", "MB", "median ms", "p95", "p99", "CPU ms"]
    names += ["decode tok/s", "prefill tok/s"] if decoders else ["samples/s"]
    for name in (*names, "peak MiB"):
        table.add_column(name, justify="right", overflow="fold")
    for row in rows:
        where = row.asked if row.asked == row.ran_on else f"{row.asked}: {row.ran_on}"
        cells = [row.model, where, str(row.threads), str(row.batch), f"{row.size_bytes / 1e6:.2f}"]
        if row.latency_ms is None:
            cells += ["failed"]
        else:
            latency = row.latency_ms
            cells += [f"{value:.3g}" for value in (latency.median, latency.p95, latency.p99)]
            cells.append("" if row.cpu_ms is None else f"{row.cpu_ms.median:.3g}")
            cells.append(_spread(row.throughput))
            if decoders:
                cells.append(_spread(row.prefill))
            cells.append("" if row.peak_rss_mib is None else f"{row.peak_rss_mib:.0f}")
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _spread(value: Spread | None) -> str:
    if value is None:
        return ""
    return f"{_short(value.median)} ({_short(value.min)}–{_short(value.max)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _notes(rows: list[Row]) -> list[str]:
    """Fallbacks and failures, each once."""
    notes = []
    for row in rows:
        if row.asked != row.ran_on:
            notes.append(f"{row.model}: {row.asked} ran on {row.ran_on}, because {row.reason}")
        elif row.placed:
            shares = ", ".join(f"{count} {name}" for name, count in row.placed.items())
            notes.append(f"{row.model} on {row.asked}, nodes: {shares}")
        if row.error:
            notes.append(f"{row.model} on {row.asked}, batch {row.batch}: {row.error}")
    return list(dict.fromkeys(notes))
