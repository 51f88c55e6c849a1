"""Where a decode step of the ONNX engine spends its time: ``python -m benchmarks.operators``.

First whole steps with one and with two threads, in turn; then onnxruntime's own profile of the same
steps, operator by operator, which makes them slower.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import onnxruntime

from benchmarks.pool import ROOT
from benchmarks.report import spread, table
from benchmarks.shapes import SHAPES, hf_folder
from engine.config import EngineConfig
from engine.models.convert import prepare
from engine.onnx.prepared import PreparedModel
from engine.onnx.session import ModelSession

PROMPT = list(range(100, 164))
STEPS = 20
ROUNDS = 12
WARM_STEPS = 3
SHOWN = 14


def session_of(model: PreparedModel, threads: int) -> ModelSession:
    """A session that holds one prompt."""
    session = ModelSession(
        model,
        slots=1,
        max_len=512,
        resident_tokens=512,
        max_chunk=128,
        threads=threads,
        spin_us=20,
    )
    session.warm_up()
    session.prefill(0, 0, PROMPT, 1)
    return session


def step_ms(sessions: dict[int, ModelSession]) -> dict[int, list[float]]:
    """Milliseconds of a step, one value per round and number of threads."""
    found: dict[int, list[float]] = {threads: [] for threads in sessions}
    for _ in range(ROUNDS):
        for threads, session in sessions.items():
            for _ in range(WARM_STEPS):
                session.decode([5], [len(PROMPT)])
            begun = time.perf_counter()
            for step in range(STEPS):
                session.decode([5], [len(PROMPT) + step])
            found[threads].append((time.perf_counter() - begun) / STEPS * 1e3)
    return found


def profile(model: PreparedModel, threads: int) -> tuple[float, Counter[str], Counter[str]]:
    """Milliseconds of a step, and of each kind of operator in it, and how many of each it has."""
    plain = onnxruntime.InferenceSession
    with tempfile.TemporaryDirectory() as folder:

        def profiled(path: str, options: Any, providers: list[str]) -> Any:
            options.enable_profiling = True
            options.profile_file_prefix = f"{folder}/profile"
            return plain(path, options, providers=providers)

        onnxruntime.InferenceSession = profiled
        try:
            session = session_of(model, threads)
        finally:
            onnxruntime.InferenceSession = plain
        for step in range(STEPS + WARM_STEPS):
            session.decode([5], [len(PROMPT) + step])
        events = json.loads(Path(session._session.end_profiling()).read_text())
    runs = [event for event in events if event["name"] == "model_run"][-STEPS:]
    spent: Counter[str] = Counter()
    count: Counter[str] = Counter()
    for event in events:
        is_kernel = event.get("cat") == "Node" and event["name"].endswith("kernel_time")
        if is_kernel and event["ts"] >= runs[0]["ts"]:
            spent[event["args"]["op_name"]] += event["dur"]
            count[event["args"]["op_name"]] += 1
    milliseconds = Counter({name: us / STEPS / 1e3 for name, us in spent.items()})
    per_step = Counter({name: number // STEPS for name, number in count.items()})
    return sum(run["dur"] for run in runs) / STEPS / 1e3, milliseconds, per_step


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="smollm2-135m")
    parser.add_argument("--precision", choices=["int8", "int8_block", "int4"], default="int8")
    asked = parser.parse_args()
    work = ROOT / "bench-results" / "models"
    source = hf_folder(SHAPES[asked.shape], work)
    config = EngineConfig(cache_dir=work.parent / "own-cache")
    folder = prepare(str(source), asked.precision, config, lambda *_: None)
    model = PreparedModel.read(folder)
    steps = step_ms({threads: session_of(model, threads) for threads in (1, 2)})
    rows = [[str(threads), spread(values)] for threads, values in steps.items()]
    sys.stdout.write(table(["threads", "ms per step, median (min–max)"], rows) + "\n\n")
    whole, spent, count = profile(model, 1)
    rows = [[name, str(count[name]), f"{ms:.2f}"] for name, ms in spent.most_common(SHOWN)]
    rows.append(["all", str(sum(count.values())), f"{whole:.2f}"])
    sys.stdout.write(table(["operator, 1 thread, profiled", "per step", "ms"], rows) + "\n")


if __name__ == "__main__":
    main()
