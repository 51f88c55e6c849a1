"""The methods that work on ONNX graphs: prepared decoders, encoders and anything else."""

from __future__ import annotations

import json
import time
from pathlib import Path

from engine.onnx.prepared import UNSERVED
from engine.quantization.calibration import Samples, check_shapes, samples
from engine.quantization.compare import difference
from engine.quantization.graph_file import graph_bytes
from engine.quantization.report import REPORT_NAME, Options, Report
from engine.quantization.runtime_tools import dynamic, static
from engine.quantization.sources import (
    Source,
    copy_companions,
    float_source,
    require_onnx_packages,
)
from engine.quantization.whole_folder import whole_folder

PRECISIONS = {"dynamic": "int8_dynamic", "static": "int8_static"}
"""What a manifest calls the methods that are not named as their precision."""
SCRATCH_FACTOR = 4  # copies of the graph that onnxruntime's tools hold on disk at once


def quantize(source: Path, out: Path, options: Options) -> Report:
    """Write the quantised graph and what belongs to it into ``out``; raises EngineStartError."""
    started = time.monotonic()
    require_onnx_packages("quantising")
    options.say("reading the model", None)
    found = float_source(source, options.cache_dir, options.say)
    check_shapes(found, options)
    before = found.size
    inputs = samples(found, options)
    with whole_folder(out, before * SCRATCH_FACTOR + 2**22) as scratch:
        made = scratch / "model" / found.inside
        made.parent.mkdir(parents=True, exist_ok=True)
        _write(found, made, scratch, inputs, options)
        options.say("comparing with the original", 0.9)
        gap = difference(found.graph, made, found, inputs)
        precision = PRECISIONS.get(options.method, options.method)
        copy_companions(found, scratch / "model", precision)
        report = Report(
            method=options.method,
            source=found.label,
            out=out,
            size_before=before,
            size_after=graph_bytes(made),
            seconds=round(time.monotonic() - started, 2),
            served=served(found, out, precision),
            difference=gap,
            notes=_notes(found, inputs, options),
        )
        text = json.dumps(report.to_json(), indent=2) + "\n"
        (scratch / "model" / REPORT_NAME).write_text(text, encoding="utf-8")
    options.say("done", 1.0)
    return report


def _write(found: Source, made: Path, scratch: Path, inputs: Samples, options: Options) -> None:
    # onnx_ir comes with an extra, which is asked for before this.
    from engine.quantization.weights import rewrite, save_again

    if options.method in PRECISIONS:
        written = scratch / "written.onnx"
        if options.method == "dynamic":
            dynamic(found, written, scratch, options)
        else:
            static(found, written, scratch, inputs.feeds, options)
        save_again(written, made)
    else:
        rewrite(found, made, scratch, options.method, options.say)


def served(found: Source, out: Path, precision: str) -> str:
    """Whether and how this project serves the result, for people."""
    if found.kind == "decoder":
        if precision in UNSERVED:
            return f"not served here: {UNSERVED[precision]}. It runs in onnxruntime itself"
        return f"llm-gateway serve --engine onnx --model {out}"
    if found.folder is not None and (found.folder / "tokenizer.json").is_file():
        if precision == "int8_dynamic":
            return (
                f"llm-gateway serve --engine onnx --model {out}; a text's vector then depends on "
                "the texts beside it"
            )
        return f"llm-gateway serve --engine onnx --model {out}"
    return "a graph by itself: any program on onnxruntime runs it"


def _notes(found: Source, inputs: Samples, options: Options) -> tuple[str, ...]:
    notes = []
    if options.method == "static" and not inputs.given:
        notes.append(
            f"calibrated on {inputs.text}: real inputs have other ranges, give some with "
            "--calibration"
        )
    elif found.kind == "graph" and not inputs.given:
        notes.append(f"compared on {inputs.text}: give real ones with --calibration")
    if options.method == "dynamic":
        notes.append(
            "one activation scale per tensor and run: a row's result depends on the rows beside it"
        )
    return tuple(notes)
