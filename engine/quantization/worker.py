"""Measures one model in one configuration, in a process of its own.

    python -m engine.quantization.worker < JOB

JOB is a JSON object, see ``Job``; the last line of standard output is a JSON object: the result,
or ``error``. It runs under interpreters with little more than numpy and onnxruntime, so nothing
else is imported here.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort

from engine.models.kernel import session_entries

WARM_UP_RUNS = 3
LEAST_RUNS = 10
MOST_RUNS = 20_000
CHUNK = 256  # tokens of one prefill run
PREFILLS = 3
DECODER_SPIN_US = 20  # as the engine has it
CPU = "CPUExecutionProvider"
LONGEST_REASON = 300
_SOURCE_LINE = re.compile(r"(Exception from )?[\w/.-]+\.(cc|cpp|h|hpp):\d+:? ?")


@dataclass(frozen=True, slots=True)
class Job:
    """What to do.

    Attributes:
        action: ``graph`` times runs on ``feeds``, ``decoder`` prefill and decode of the prepared
            folder around ``graph``; ``place`` runs once and tells which provider ran which nodes.
        feeds: an ``.npz`` with the graph's inputs; empty for ``decoder``.
        provider: onnxruntime's name.
        seconds: how long to measure at least.
        manifest: of a decoder: the fields of ``engine.onnx.prepared.Manifest``.
        prompt, tokens: of a decoder: how many to prefill and then to decode per pass.
    """

    action: str
    graph: str
    feeds: str
    provider: str
    threads: int
    batch: int
    seconds: float
    manifest: dict[str, Any] | None = None
    prompt: int = 0
    tokens: int = 0


def main() -> int:
    """Read a job, do it, print what came of it."""
    job = Job(**json.load(sys.stdin))
    actions: dict[str, Callable[[Job], dict[str, Any]]] = {
        "graph": time_graph,
        "decoder": time_decoder,
        "place": place,
    }
    try:
        result = actions[job.action](job)
    except Exception as error:  # onnxruntime's exceptions share no public base
        result = {"error": reason(error)}
    result["onnxruntime"] = ort.__version__
    result["peak_rss_mib"] = peak_rss_mib()
    sys.stdout.write(f"\n{json.dumps(result)}\n")
    return 0


def time_graph(job: Job) -> dict[str, Any]:
    """Latencies of whole runs, inputs from and outputs to memory of the host."""
    started = time.perf_counter()
    session = open_session(job)
    load_s = time.perf_counter() - started
    feeds = read_feeds(job)
    for _ in range(WARM_UP_RUNS):
        session.run(None, feeds)
    latencies: list[float] = []
    cpu = time.process_time()
    end = time.perf_counter() + job.seconds
    while len(latencies) < MOST_RUNS:
        before = time.perf_counter()
        if before >= end and len(latencies) >= LEAST_RUNS:
            break
        session.run(None, feeds)
        latencies.append((time.perf_counter() - before) * 1e3)
    cpu_ms = (time.process_time() - cpu) * 1e3 / len(latencies)
    return {"load_s": load_s, "latencies_ms": rounded(latencies), "cpu_ms": cpu_ms}


def time_decoder(job: Job) -> dict[str, Any]:
    """Times of prefilling one prompt and of decode steps that are ``batch`` sequences wide."""
    from engine.onnx.prepared import Manifest, PreparedModel
    from engine.onnx.session import ModelSession

    assert job.manifest is not None
    manifest = Manifest(**job.manifest)
    # The tokenizer is of no use here, and tokenizers need not be installed.
    model = PreparedModel(Path(job.graph).parent, manifest, cast("Any", None), None, {}, {})
    started = time.perf_counter()
    session = ModelSession(
        model,
        slots=job.batch,
        max_len=job.prompt + job.tokens,
        resident_tokens=job.batch * (job.prompt + job.tokens),
        max_chunk=min(CHUNK, job.prompt),
        threads=job.threads,
        spin_us=DECODER_SPIN_US,
        providers=providers(job),
    )
    session.warm_up()
    load_s = time.perf_counter() - started
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, manifest.vocab_size, job.prompt).tolist()
    step = rng.integers(0, manifest.vocab_size, job.batch).tolist()

    def prefill(slot: int) -> float:
        before = time.perf_counter()
        for at in range(0, job.prompt, CHUNK):
            session.prefill(slot, at, prompt[at : at + CHUNK], wanted=1)
        return (time.perf_counter() - before) * 1e3

    cpu = time.process_time()
    prefills = [prefill(0) for _ in range(PREFILLS)]
    prefill_cpu_ms = (time.process_time() - cpu) * 1e3 / PREFILLS
    for slot in range(1, job.batch):
        prefill(slot)
    session.decode(step, [job.prompt] * job.batch)
    latencies: list[float] = []
    cpu = time.process_time()
    end = time.perf_counter() + job.seconds
    while not latencies or (time.perf_counter() < end and len(latencies) < MOST_RUNS):
        for past in range(job.prompt, job.prompt + job.tokens):
            before = time.perf_counter()
            session.decode(step, [past] * job.batch)
            latencies.append((time.perf_counter() - before) * 1e3)
    return {
        "load_s": load_s,
        "latencies_ms": rounded(latencies),
        "cpu_ms": (time.process_time() - cpu) * 1e3 / len(latencies),
        "prefills_ms": rounded(prefills),
        "prefill_cpu_ms": prefill_cpu_ms,
    }


def place(job: Job) -> dict[str, Any]:
    """Count the nodes (a fused part counts as one) that each provider ran."""
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(job)
        options.enable_profiling = True
        options.profile_file_prefix = f"{folder}/profile"
        session = open_session(job, options)
        session.run(None, read_feeds(job))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    counts = Counter(
        event["args"].get("provider", "unknown")
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    )
    return {"placed": dict(counts)}


def read_feeds(job: Job) -> dict[str, Any]:
    """The graph's inputs, in memory."""
    with np.load(job.feeds) as archive:
        return dict(archive)


def open_session(job: Job, options: Any = None) -> Any:
    """A session on the job's provider; raises RuntimeError when onnxruntime left it out."""
    session = ort.InferenceSession(
        job.graph, options or session_options(job), providers=providers(job)
    )
    if job.provider not in session.get_providers():
        raise RuntimeError(f"onnxruntime could not load {job.provider}")
    return session


def session_options(job: Job) -> Any:
    """Threads as asked, exact 8-bit products, and only fatal messages."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    for entry, value in session_entries().items():
        options.add_session_config_entry(entry, value)
    return options


def providers(job: Job) -> Sequence[Any]:
    """The provider with its number of threads; the CPU takes the nodes that it leaves."""
    if job.provider == CPU:
        return [CPU]
    if job.provider == "OpenVINOExecutionProvider":
        settings = {"device_type": "CPU", "num_of_threads": str(job.threads)}
        return [(job.provider, settings), CPU]
    return [job.provider, CPU]


def reason(error: BaseException) -> str:
    """The end of a message, where onnxruntime and its providers say what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = _SOURCE_LINE.sub("", " ".join(lines[-2:])) or type(error).__name__
    return text if len(text) <= LONGEST_REASON else f"...{text[-LONGEST_REASON:]}"


def rounded(values: list[float]) -> list[float]:
    """To a tenth of a microsecond."""
    return [round(value, 4) for value in values]


def peak_rss_mib() -> float | None:
    """Largest resident memory of this process so far, in MiB.

    ``getrusage`` would count the parent's before the program was loaded.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return None
    line = next((text for text in status.splitlines() if text.startswith("VmHWM:")), None)
    return None if line is None else round(int(line.split()[1]) / 1024, 1)


if __name__ == "__main__":
    sys.exit(main())
