"""``python -m benchmarks.quantization``: size, speed and error of every ONNX variant.

The bundled model and SmolLM2-135M's shape with random weights, quantised by every method of
``llm-gateway model quantize`` and measured as ``llm-gateway model bench`` does, on one thread. The
tables go to stdout as Markdown, everything behind them to a JSON file, progress to stderr. Models
that were made are kept under bench-results/ and used again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.pool import ROOT
from benchmarks.report import spread, table
from benchmarks.shapes import SHAPES, hf_folder
from engine.quantization.bench import Plan, bench
from engine.quantization.machine import describe
from engine.quantization.methods import quantize
from engine.quantization.report import REPORT_NAME, Options
from engine.quantization.rows import Row, Spread
from engine.quantization.sources import existing_graph, measured_sources

OUT = ROOT / "bench-results"
METHODS = ("int8", "int8_block", "int4", "dynamic", "static")
BATCHES = (1, 4, 16)
PROMPT = 128


def say(stage: str, _: float | None = None) -> None:
    """Progress for a person."""
    sys.stderr.write(f"{stage}\n")


def made(source: str, name: str, work: Path) -> list[Path]:
    """The fp32 folder and one folder per method."""
    if source != "bundled":
        source = str(hf_folder(SHAPES[source], work))
    exact = next(iter(measured_sources(source, ["fp32"], work / "cache", say))).folder
    assert exact is not None
    folders = [exact]
    for method in METHODS:
        folder = work / "quantised" / f"{name}-{method}"
        if not folder.is_dir():
            say(f"{name}: {method}")
            quantize(str(exact), folder, Options(method=method, samples=8, say=say))
        folders.append(folder)
    return folders


def per_second(count: int, cpu_ms: Spread | None) -> str:
    """Tokens per second of CPU time, with the spread over rounds."""
    if cpu_ms is None:
        return "–"
    return spread([count * 1e3 / value for value in (cpu_ms.median, cpu_ms.min, cpu_ms.max)])


def speed(variants: list[str], rows: list[Row]) -> str:
    """Size, memory and tokens per second of CPU time, a variant a line."""
    head = ["", "MB", f"prefill {PROMPT}", *(f"decode, {batch}" for batch in BATCHES), "peak MiB"]
    lines = []
    for number, variant in enumerate(variants):
        mine = rows[number * len(BATCHES) : (number + 1) * len(BATCHES)]
        cells = [variant, f"{mine[0].size_bytes / 1e6:.2f}"]
        cells.append(per_second(PROMPT, mine[0].prefill_cpu_ms))
        cells += [per_second(row.batch, row.cpu_ms) for row in mine]
        cells.append(f"{mine[0].peak_rss_mib or 0:.0f}")
        lines.append(cells)
    return table(head, lines)


def error(folders: list[Path]) -> tuple[str, list[dict[str, Any]]]:
    """What each variant's logits differ by, from the report beside it."""
    head = ["", "signal to noise", "cosine", "max error", "mean error", "same first choice"]
    reports = [json.loads((folder / REPORT_NAME).read_text()) for folder in folders]
    lines = []
    for report in reports:
        gap = report["difference"]
        lines.append(
            [
                report["method"],
                f"{gap['snr_db']:.1f} dB",
                f"{gap['cosine']:.5f}",
                f"{gap['max_abs']:.3g}",
                f"{gap['mean_abs']:.3g}",
                f"{gap['same_choice']:.1%}",
            ]
        )
    return table(head, lines), reports


def main(argv: list[str]) -> None:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantization", description=__doc__)
    parser.add_argument("--models", default="bundled,smollm2-135m")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16, help="decoded per stream and pass")
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--work", type=Path, default=OUT / "models")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(argv)
    everything: dict[str, Any] = {"machine": describe()}
    for name in options.models.split(","):
        folders = made(name, name, options.work)
        plan = Plan(
            models=tuple(found for found in map(existing_graph, folders) if found is not None),
            batches=BATCHES,
            rounds=options.rounds,
            seconds=options.seconds,
            prompt=PROMPT,
            tokens=options.tokens,
            say=say,
        )
        rows = bench(plan)
        failed = [f"{row.model}: {row.error}" for row in rows if row.error]
        if failed:
            raise SystemExit("\n".join(failed))
        quality, reports = error(folders[1:])
        print(
            f"\n{name}, tok/s of CPU time on one thread, median (range) of {plan.rounds} rounds\n"
        )
        print(speed(["fp32", *METHODS], rows))
        print(f"\n{name}, logits beside fp32 on built-in prompts\n")
        print(quality)
        everything[name] = {"rows": [row.to_json() for row in rows], "reports": reports}
    OUT.mkdir(exist_ok=True)
    file = options.json or OUT / f"quantization-{time.strftime('%Y%m%d-%H%M%S')}.json"
    file.write_text(json.dumps(everything, indent=2))
    say(str(file))


if __name__ == "__main__":
    main(sys.argv[1:])
