"""``make bench-cpu``: this engine beside llama.cpp, onnxruntime-genai and vLLM on CPU.

Every engine runs the same shapes with the same random weights, lengths and threads, in
interleaved rounds; only one of them runs at any moment. The tables go to stdout as
Markdown, everything behind them to a JSON file, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.environments import PeerUnavailable, has_module, say
from benchmarks.peers import OWN, PEERS, default_peers
from benchmarks.pool import ROOT, Pool, Worker, WorkerError
from benchmarks.report import Goal
from benchmarks.rounds import Results, measures, run_rounds
from benchmarks.served import ServedResults, run_served
from benchmarks.shapes import SHAPES, Shape, hf_folder

OUT = ROOT / "bench-results"
WORK = OUT / "models"
READY_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures."""

    shapes: list[Shape]
    peers: list[str]
    rounds: int
    tokens: int
    threads: int
    served: bool
    json_file: Path


def names(text: str, known: list[str], what: str) -> list[str]:
    """Split a comma-separated option and check every name."""
    chosen = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in known]
    if unknown or not chosen:
        raise SystemExit(f"--{what}: unknown {', '.join(unknown)}; there are {', '.join(known)}")
    return chosen


def parse(argv: list[str]) -> Plan:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cpu", description=__doc__)
    quick = "2 rounds of 16 tokens on the smallest shape: does everything run?"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--rounds", type=int, help="rounds per shape (default 5)")
    parser.add_argument("--tokens", type=int, help="tokens per stream and measure (default 64)")
    parser.add_argument("--threads", type=int, help="CPU threads of every engine")
    parser.add_argument("--shapes", help=f"comma-separated, of {', '.join(SHAPES)}")
    parser.add_argument("--peers", help=f"comma-separated, of {', '.join(PEERS)}")
    parser.add_argument("--no-server", action="store_true", help="leave out the HTTP server part")
    parser.add_argument("--json", type=Path, help="file for the results")
    chosen = parser.parse_args(argv)
    shape_names = ",".join(list(SHAPES)[:1] if chosen.quick else SHAPES)
    peer_names = ",".join(default_peers())
    default_json = OUT / f"cpu-{time.strftime('%Y%m%d-%H%M%S')}.json"
    plan = Plan(
        shapes=[SHAPES[n] for n in names(chosen.shapes or shape_names, list(SHAPES), "shapes")],
        peers=names(chosen.peers or peer_names, list(PEERS), "peers"),
        rounds=chosen.rounds or (2 if chosen.quick else 5),
        tokens=chosen.tokens or (16 if chosen.quick else 64),
        threads=chosen.threads or machine.physical_cores(),
        served=not chosen.no_server,
        json_file=chosen.json or default_json,
    )
    if plan.rounds < 1 or plan.threads < 1 or not 4 <= plan.tokens <= 256:
        raise SystemExit("--rounds and --threads are at least 1, --tokens is between 4 and 256")
    return plan


def measure_shape(shape: Shape, plan: Plan) -> Results:
    """Start every engine on one shape and run the rounds."""
    say(f"{shape.title}: making the model and starting engines")
    hf_folder(shape, WORK)
    unavailable: dict[str, str] = {}
    started: dict[str, Worker] = {}
    with Pool() as pool:
        for key in plan.peers:
            try:
                prepared = PEERS[key].prepare(shape, WORK)
                log = OUT / "logs" / f"{shape.name}-{key}.log"
                worker = Worker(key, prepared.argv, prepared.job(plan.threads), log)
                pool.workers.append(worker)
                begin = time.monotonic()
                worker.wait_ready(READY_TIMEOUT_S)
            except (PeerUnavailable, WorkerError) as error:
                say(f"  {PEERS[key].title} is left out: {error}")
                unavailable[key] = str(error).splitlines()[0]
                continue
            say(f"  {PEERS[key].title}: ready after {time.monotonic() - begin:.0f} s")
            started[key] = worker
        results = run_rounds(started, measures(plan.tokens), plan.rounds, plan.threads)
    results.errors.update(unavailable)
    return results


def main(argv: list[str] | None = None) -> int:
    """Run the plan; the exit status says whether the numbers exist, not how good they are."""
    plan = parse(sys.argv[1:] if argv is None else argv)
    # Frozen workers must not outlive the harness: leave by the way that closes them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not has_module("torch") or not has_module("transformers"):
        say("torch and transformers make the models; install them: pip install -e '.[convert]'")
        return 2
    described = machine.describe()
    load = machine.load_average()
    say(f"{described['cpu']}, {plan.threads} threads, load average {load}")
    if load > 0.5:
        say("  something else is running on this machine: expect a wide spread")
    document: dict[str, Any] = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": described,
        "load_average_at_start": load,
        "plan": {**asdict(plan), "json_file": plan.json_file.name},
        "shapes": {},
    }
    found: list[Goal] = []
    columns = measures(plan.tokens)
    for shape in plan.shapes:
        results = measure_shape(shape, plan)
        document["shapes"][shape.name] = report.shape_json(results)
        found += report.goals(shape, results, columns)
        bandwidth = report.spread([value / 1e9 for value in results.bandwidth])
        print(f"\n### {shape.title}\n\nMemory read bandwidth: {bandwidth} GB/s\n")
        print(f"{report.disturbance(results)}\n")
        print(report.rates_table(results, columns))
        print(f"\n{report.ratios_table(results, columns)}", flush=True)
    if plan.served and OWN in plan.peers:
        served: ServedResults = run_served(plan.shapes[0], plan.rounds, plan.threads, WORK, OUT)
        document["served"] = served.as_json()
        found += served.goals()
        print(f"\n### Through the HTTP server\n\n{served.table()}")
    print(f"\n### Goals\n\n{report.goals_table(found)}")
    document["goals"] = [asdict(goal) for goal in found]
    plan.json_file.parent.mkdir(parents=True, exist_ok=True)
    plan.json_file.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nAll samples: {plan.json_file}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
