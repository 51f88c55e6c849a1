"""Prints what ``llm-gateway model convert`` made: a table per kind of model."""

from __future__ import annotations

from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from engine.models.convert_to import Conversion

SHOWN = 32  # characters of a prompt
DECODER_CAPTION = (
    "greedy: tokens that are the same before the first that differs; max diff, rel error: of the "
    "logits; top-1: positions with the same most likely token"
)


def print_conversion(conversion: Conversion, console: Console) -> None:
    """Print the comparison with the original, then what lies where and what to do with it."""
    console.print(_table(conversion))
    for line in _summary(conversion):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(conversion: Conversion) -> RenderableType:
    if conversion.kind == "decoder":
        return _decoder_table(conversion.rows)
    if conversion.kind == "encoder":
        return _encoder_table(conversion.rows)
    return _graph_table(conversion.graph or {})


def _decoder_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Against the PyTorch original in fp32", caption=DECODER_CAPTION)
    table.add_column("prompt")
    for name in ("tokens", "greedy", "max diff", "rel error", "top-1"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            shown(row["prompt"]),
            str(row["prompt_tokens"]),
            f"{row['same_tokens']}/{row['tokens']}",
            f"{row['max_logit_difference']:.2g}",
            f"{row['relative_error']:.2g}",
            f"{row['same_choice']:.1%}",
        )
    return table


def _encoder_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Vectors against the PyTorch original in fp32")
    table.add_column("text")
    for name in ("tokens", "cosine", "distance"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(
            shown(row["prompt"]),
            str(row["tokens"]),
            f"{row['cosine']:.6f}",
            f"{row['distance']:.2g}",
        )
    return table


def _graph_table(graph: dict[str, Any]) -> Table:
    table = Table(title="Inputs and outputs")
    for name in ("", "name", "type", "shape"):
        table.add_column(name)
    for side in ("inputs", "outputs"):
        for value in graph[side]:
            shape = ", ".join("?" if size is None else str(size) for size in value["shape"])
            table.add_row(side[:-1], Text(value["name"]), value["type"], Text(f"[{shape}]"))
    return table


def _summary(conversion: Conversion) -> list[str]:
    size = f"{conversion.bytes / 2**20:.1f} MiB"
    made = f"{conversion.parameters:,} parameters, {size}, {conversion.seconds} s"
    if conversion.graph is not None:
        graph = conversion.graph
        operators = list(graph["operators"].items())
        listed = ", ".join(f"{count} {kind}" for kind, count in operators[:8])
        more = f" and {len(operators) - 8} other kinds" if len(operators) > 8 else ""
        lines = [f"{conversion.out}: {graph['nodes']} nodes ({listed}{more}), {made}"]
        if graph["outside_standard"]:
            lines.append(f"onnx.checker: {graph['outside_standard']}; onnxruntime loads it")
        lines.append(
            "The graph is taken as it is and is not served as a chat model. It can be quantised "
            f"and measured: llm-gateway model quantize {conversion.out}, llm-gateway model bench "
            f"{conversion.out}"
        )
        return lines
    return [
        f"{conversion.out}: {conversion.architecture}, {conversion.precision}, {made}",
        f"Serve it: MODEL_NAME={conversion.out} ENGINE=onnx llm-gateway serve",
    ]


def shown(prompt: str) -> Text:
    """A prompt on one line, cut to what a table has room for."""
    line = " ".join(prompt.split())
    return Text(line if len(line) <= SHOWN else line[: SHOWN - 1] + "…")
