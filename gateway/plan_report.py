"""Plans and advice on the terminal: tables on stdout, progress on stderr, JSON in a file."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gateway.terminal import fail

Json = dict[str, Any]
_GIB = 1024**3


@contextlib.contextmanager
def working() -> Iterator[Callable[[str], None]]:
    """A spinner on stderr for as long as the block runs; call with what is being done."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("working") as status:
        yield status.update


def deliver(found: Json, out: Path | None, as_json: bool, show: Callable[[Json], None]) -> None:
    """Print ``found``, and write it to ``out``; ends the command where that fails."""
    text = json.dumps(found, indent=2)
    if out is not None:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            fail(f"the result cannot be written to {out} ({error})")
    if as_json:
        sys.stdout.write(text + "\n")
    else:
        show(found)


def print_plan(found: Json) -> None:
    """The plan as tables, the settings as .env lines."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    console.print(_rows("Memory", _memory(found)))
    console.print(_rows("One replica", _replica(found)))
    console.print(_rows("Answer", _answer(found)))
    console.print("\n# Settings of each replica (.env)")
    for name, value in found["settings"].items():
        console.print(f"{name}={value}", markup=False)
    for note in found["notes"]:
        console.print(f"\nNote: {note}", markup=False)
    if found["cost"] and found["cost"]["warning"]:
        console.print(f"\nNote: {found['cost']['warning']}", markup=False)


def print_advice(found: Json) -> None:
    """The choices as a table, then the recommendation."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    table = Table(title=f"{found['model']} on {found['hardware']}")
    heads = ("", "weights", "room for", "one stream", "full", "per 1M tokens")
    for head in heads:
        table.add_column(head, justify="right" if head else "left")
    for choice in found["choices"]:
        if choice["refused"]:
            table.add_row(choice["title"], "cannot run")
            continue
        cost = choice["cost_per_million_output_tokens"]
        mark = "→ " if choice["method"] == found["recommended"] else ""
        table.add_row(
            mark + choice["title"],
            _gib(choice["weights_bytes"]),
            f"{choice['sequences']} sequences",
            f"{choice['one_stream_tokens_per_s']:.0f} tok/s",
            f"{choice['full_tokens_per_s']:.0f} tok/s",
            "no price" if cost is None else f"{cost:.2f} {found['currency']}",
        )
    console.print(table)
    for choice in found["choices"]:
        if said := choice["refused"] or choice["note"]:
            console.print(f"{choice['title']}: {said}", markup=False)
    console.print(f"\nTake {found['recommended_title']}: {found['why']}.", markup=False)
    for name, value in found["settings"].items():
        console.print(f"{name}={value}", markup=False)
    if found["price"]:
        price = found["price"]
        console.print(
            f"\nPrices: {price['machine']}, {price['region']}, as of {price['as_of']}, "
            f"{price['source']}. {price['warning']}",
            markup=False,
        )


def _rows(title: str, rows: list[tuple[str, str]]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(name, value)
    return table


def _memory(found: Json) -> list[tuple[str, str]]:
    memory = found["memory"]
    kept = "16 bits" if memory["weights_in"] == "none" else memory["weights_in"]
    rows = [
        ("usable", _gib(memory["usable_bytes"])),
        (f"weights ({kept})", _gib(memory["weights_bytes"])),
    ]
    estimated = {
        "activations_bytes": "activations (estimated)",
        "context_bytes": "CUDA context (estimated)",
        "cuda_graphs_bytes": "CUDA graphs (assumed)",
    }
    rows += [(title, _gib(memory[key])) for key, title in estimated.items() if key in memory]
    blocks = f"{memory['blocks']} of {memory['block_tokens']} tokens"
    return [
        *rows,
        ("KV per token", f"{memory['kv_bytes_per_token']:,} bytes"),
        ("KV blocks", blocks),
        ("sequences of full length", str(memory["full_length_sequences"])),
    ]


def _replica(found: Json) -> list[tuple[str, str]]:
    speed, hardware = found["speed"], found["hardware"]
    gpus = hardware.get("gpus_per_replica", 1)
    return [
        ("hardware", f"{gpus} x {hardware['gpu']}" if gpus > 1 else hardware["gpu"]),
        *_measured(hardware),
        ("one sequence, per token", f"{speed['decode_one_sequence_ms']:.2f} ms"),
        ("sequences at once", str(speed["concurrent_sequences"])),
        ("kept full", f"{speed['full_throughput_tokens_per_s']:.0f} output tok/s"),
    ]


def _measured(hardware: Json) -> list[tuple[str, str]]:
    if "gemm_gops" not in hardware:
        return []
    bandwidth, rate = hardware["bandwidth_gb_per_s"], hardware["gemm_gops"]
    return [("measured", f"{bandwidth:.0f} GB/s memory, {rate:.0f} GOPS products")]


def _answer(found: Json) -> list[tuple[str, str]]:
    simulated, formula = found["simulation"], found["formula"]
    at = f"p{found['percentile']:g}"
    rows = [
        ("replicas", f"{found['replicas']} (formula alone: {found['replicas_by_formula']})"),
        ("demand", f"{found['speed']['demand_tokens_per_s']:.0f} output tok/s over all"),
        (
            f"TTFT {at}",
            f"{simulated['ttft_ms']:.0f} ms simulated, {formula['ttft_ms']:.0f} by formula",
        ),
        (
            f"ITL {at}",
            f"{simulated['itl_ms']:.1f} ms simulated, {formula['itl_ms']:.1f} by formula",
        ),
        ("decoding at once", f"{simulated['running']:.1f} per replica"),
        ("preemptions", f"{simulated['preemptions']} in {simulated['requests']} requests"),
    ]
    if (cost := found["cost"]) is None:
        return [*rows, ("cost", "no price is known: give --prices FILE")]
    currency = cost["currency"]
    for key, title in (("monthly_on_demand", "on demand"), ("monthly_spot", "spot")):
        value = cost[key]
        text = "no figure" if value is None else f"{value:,.0f} {currency} a month"
        rows.append((f"cost, {title}", text))
    per_million = cost["per_million_output_tokens"]
    if per_million is not None:
        rows.append(("per 1M output tokens", f"{per_million:.2f} {currency}"))
    rows.append(("price", f"{cost['machines']} x {cost['machine']}, as of {cost['as_of']}"))
    return rows


def _gib(size: float) -> str:
    return f"{size / _GIB:.2f} GiB" if size >= _GIB else f"{size / 1024**2:.1f} MiB"
