"""``llm-gateway model quantize``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.terminal import fail

if TYPE_CHECKING:
    from rich.table import Table

    from engine.quantization.report import Report


class Ranges(StrEnum):
    """Methods of calibration."""

    minmax = "minmax"
    entropy = "entropy"
    percentile = "percentile"


def quantize_model(
    model: Annotated[str, typer.Argument(help="What to quantise.")],
    method: Annotated[
        str,
        typer.Option(
            help="int8 (per token), int8_block or int4 (MatMulNBits), dynamic, static (QDQ); "
            "for vLLM: awq, fp8, w8a8."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A folder that does not exist yet.")],
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="Inputs to calibrate with: .npz or .npy (or a folder of them) for a graph, a "
            "JSONL of prompts for a decoder. Absent: synthetic inputs, built-in prompts."
        ),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, max=100_000, help="Most of them to use.")] = 64,
    ranges: Annotated[
        Ranges, typer.Option(help="static: how a range follows from values.")
    ] = Ranges.minmax,
    percentile: Annotated[
        float, typer.Option(min=50, max=100, help="static: per cent of values inside the range.")
    ] = 99.99,
    per_channel: Annotated[
        bool, typer.Option(help="dynamic, static: a scale per output channel of a weight.")
    ] = True,
    dim: Annotated[
        list[str] | None, typer.Option(help="Size of an open dimension, name=number.")
    ] = None,
    batch: Annotated[
        int, typer.Option(min=1, max=65_536, help="Size of the first dimension where open.")
    ] = 8,
    install: Annotated[
        bool, typer.Option("--install", help="Install what awq, fp8 and w8a8 need, once.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a smaller variant of a model, and compare it with the original.

    MODEL is bundled, a Hugging Face folder or hub id, a prepared folder (fp32),
    a folder with model.onnx, or an .onnx file of any kind.

    Examples:

      llm-gateway model quantize bundled --method int4 --out ./tiny-int4

      llm-gateway model quantize ./Qwen3-0.6B --method int8 --out ./qwen-int8

      llm-gateway model quantize rank.onnx --method static \\
        --calibration day.npz --out ./rank8

      llm-gateway model quantize resnet.onnx --method dynamic \\
        --dim side=224 --out ./resnet8
    """
    import json

    from rich.console import Console

    from engine.base import EngineStartError
    from engine.quantization.methods import quantize
    from engine.quantization.report import Options
    from gateway.model_cli.graph_options import cache_folder, read_dims
    from gateway.stage_progress import stage_progress

    try:
        with stage_progress() as say:
            report = quantize(
                model,
                out,
                Options(
                    method=method,
                    calibration=calibration,
                    samples=samples,
                    ranges=ranges.value,
                    percentile=percentile,
                    per_channel=per_channel,
                    dims=read_dims(dim or []),
                    batch=batch,
                    cache_dir=cache_folder(),
                    install=install,
                    say=say,
                ),
            )
    except EngineStartError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=2))
    else:
        Console().print(table_of(report))


def table_of(report: Report) -> Table:
    """The report for a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{report.source}: {report.method}", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    saved = 1 - report.size_after / report.size_before if report.size_before else 0.0
    rows = [
        ("folder", str(report.out)),
        (
            "size",
            f"{report.size_before / 1e6:,.2f} MB -> {report.size_after / 1e6:,.2f} MB "
            f"({-saved:+.0%})",
        ),
    ]
    gap = report.difference
    if gap is not None:
        snr = "no difference" if gap.snr_db is None else f"{gap.snr_db:.1f} dB"
        rows += [
            ("compared on", gap.inputs),
            ("max / mean error", f"{gap.max_abs:.4g} / {gap.mean_abs:.4g}"),
            ("signal to noise", snr),
            ("cosine", f"{gap.cosine:.6f}"),
        ]
        if gap.same_choice is not None:
            rows.append(("same first choice", f"{gap.same_choice:.1%}"))
    rows += [("took", f"{report.seconds:.1f} s"), ("served", report.served)]
    rows += [("note", note) for note in report.notes]
    for name, value in rows:
        table.add_row(name, Text(value))
    return table
