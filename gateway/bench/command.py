"""What ``llm-gateway bench`` does once its options are read: run or compare, write, show."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import orjson
import typer
from rich.console import Console

from gateway.bench.compare import compare, read_runs
from gateway.bench.errors import BenchError, Interrupted
from gateway.bench.html_report import html_report
from gateway.bench.options import BenchOptions, Server
from gateway.bench.progress import Progress
from gateway.bench.session import run_bench
from gateway.bench.tables import print_comparison, print_summary
from gateway.terminal import fail

INTERRUPTED = 130


def run_and_show(
    options: BenchOptions, *, out: Path | None, html: Path | None, as_json: bool, overhead: bool
) -> None:
    """Run, write files and show the summary; ends the process with its exit code."""
    try:
        for path in (out, html):
            writable(path)
        result = run_bench(options, Progress(), overhead=overhead)
    except BenchError as error:
        fail(str(error))
    except Interrupted:
        sys.stderr.write("llm-gateway: ended before anything was measured\n")
        raise typer.Exit(INTERRUPTED) from None
    runs = result.documents
    comparison = compare(*runs) if len(runs) == 2 else []
    document: Any = runs[0]
    if len(runs) == 2:
        document = {"runs": runs, "comparison": comparison}
    if as_json:
        sys.stdout.write(as_text(document).decode())
    else:
        print_summary(console_out(), runs, comparison)
    # What was measured is on the screen by now, should the disk be full.
    if out is not None:
        save(out, as_text(document))
    if html is not None:
        save(html, html_report(runs, comparison, interrupted=result.interrupted).encode())
    for warning in runs[0]["generator"]["warnings"]:
        sys.stderr.write(f"llm-gateway: warning: {warning}\n")
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)
    if not all(run["completed"] for run in runs):
        fail(
            "no request was completed by "
            + " and ".join(run["label"] for run in runs if not run["completed"])
        )


def compare_and_show(
    files: list[Path], *, out: Path | None, html: Path | None, as_json: bool
) -> None:
    """Compare the two runs that the files hold."""
    try:
        for path in (out, html):
            writable(path)
        runs = [run for path in files for run in read_runs(path)]
        if len(runs) != 2:
            raise BenchError(f"two runs can be compared, and these files hold {len(runs)}")
        if html is not None and not all("timeline" in run for run in runs):
            raise BenchError("--html needs two results of llm-gateway bench; leave it out")
    except BenchError as error:
        fail(str(error))
    names = [str(run.get("label") or path.stem) for run, path in zip(runs, files * 2, strict=False)]
    if names[0] == names[1]:
        names = [path.stem for path in (files * 2)[:2]] if len(files) == 2 else ["A", "B"]
    for run, name in zip(runs, names, strict=True):
        run["label"] = name
    comparison = compare(*runs)
    if as_json:
        sys.stdout.write(as_text(comparison).decode())
    else:
        print_comparison(console_out(), comparison, names)
    if out is not None:
        save(out, as_text(comparison))
    if html is not None:
        save(html, html_report(runs, comparison, interrupted=False).encode())


def server_of(
    name: str,
    base_url: str,
    api_key: str | None,
    model: str | None,
    headers: list[str] | None,
    ca_file: Path | None,
) -> Server:
    """One server of the command line. Raises BenchError."""
    pairs = []
    for text in headers or []:
        key, sign, value = text.partition("=")
        if not sign or not key.strip():
            raise BenchError(f"--header {text!r} is not NAME=VALUE")
        pairs.append((key.strip(), value.strip()))
    if ca_file is not None and not ca_file.is_file():
        raise BenchError(f"--ca-file {ca_file} is no file")
    return Server(name, base_url, api_key, model, tuple(pairs), ca_file)


def read_object(text: str | None) -> dict[str, Any]:
    """A JSON object of the command line. Raises BenchError."""
    try:
        found = {} if text is None else orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BenchError(f"--extra-body is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise BenchError("--extra-body must be a JSON object, such as '{\"top_p\": 0.9}'")
    return found


def writable(path: Path | None) -> None:
    """Find out before the run, and not after it, that a result cannot be written."""
    if path is None:
        return
    try:
        with path.open("ab"):
            pass
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}") from None


def save(path: Path, data: bytes) -> None:
    """Write a result, or end with the reason."""
    try:
        path.write_bytes(data)
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror}")
    sys.stderr.write(f"written: {path}\n")


def as_text(document: Any) -> bytes:
    """Indented JSON."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"


def console_out() -> Console:
    """stdout. A pipe has no width of its own, and cut-off numbers are worse than long lines."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)
