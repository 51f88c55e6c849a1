"""``make bench-frontend``: what the gateway's own process costs per streamed token and request.

Part one puts the gateway with vLLM inside next to ``vllm serve`` of the same version: same
model, same load, interleaved rounds, one of them frozen while the other is measured. Part two
measures the gateway alone, with an engine that costs next to nothing. Tables go to stdout as
Markdown, everything behind them to a JSON file, progress to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.environments import has_module, say
from benchmarks.frontend import servers, tables
from benchmarks.frontend.measure import Results, Shape, measure
from benchmarks.pool import ROOT, Pool, Worker, WorkerError
from benchmarks.report import goals_table
from benchmarks.served import ServerFault
from benchmarks.workers.wire import Job
from engine.models.find import BundledModel
from engine.vllm.compat import installed_version

OUT = ROOT / "bench-results"
PARTS = ("vllm", "fake")
FAKE_SETTINGS = {"ENGINE": "fake", "MAX_NUM_SEQS": "1024"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures."""

    parts: tuple[str, ...]
    rounds: int
    shapes: list[Shape]
    fake_shapes: list[Shape]
    setup: servers.EngineSetup
    profile: str | None
    json_file: Path


def numbers(text: str) -> list[int]:
    """A comma-separated list of positive numbers."""
    found = [int(part) for part in text.split(",")]
    if not found or min(found) < 1 or max(found) > 1024:
        raise argparse.ArgumentTypeError("numbers from 1 to 1024")
    return found


def parse(argv: list[str]) -> Plan:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frontend", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run?")
    parser.add_argument("--rounds", type=int, help="rounds of part one and two (default 5)")
    parser.add_argument("--streams", type=numbers, default=[1, 16, 64], help="default 1,16,64")
    parser.add_argument("--tokens", type=int, help="tokens per request (default 256)")
    parser.add_argument("--parts", default="vllm,fake", help="of vllm, fake")
    parser.add_argument("--profile", choices=PARTS, help="sample one gateway under load instead")
    parser.add_argument("--model", default=str(BundledModel().checkpoint), help="for vLLM")
    parser.add_argument("--dtype", default="float32", help="for vLLM (default float32)")
    parser.add_argument("--no-eager", action="store_true", help="let vLLM compile: for GPUs")
    parser.add_argument("--gpu-share", type=float, help="GPU memory of each of the two servers")
    parser.add_argument("--json", type=Path, help="file for the results")
    chosen = parser.parse_args(argv)
    parts = tuple(part for part in PARTS if part in chosen.parts.split(","))
    tokens = chosen.tokens or (32 if chosen.quick else 256)
    rounds = chosen.rounds or (1 if chosen.quick else 5)
    if not parts or rounds < 1 or not 2 <= tokens <= 1024:
        raise SystemExit("--parts names vllm or fake, --rounds is at least 1, --tokens 2 to 1024")
    # Enough to outweigh the clock's grain: the CPU of a single stream is a few milliseconds.
    scale = 1 if chosen.quick else 4
    least = 4 * scale
    return Plan(
        parts=parts,
        rounds=rounds,
        shapes=[
            *(Shape(n, max(least, n, n * scale // 2), tokens) for n in chosen.streams),
            *(Shape(n, max(8 * scale, 2 * n * scale), 1) for n in chosen.streams),
        ],
        fake_shapes=[
            *(Shape(n, max(8 * scale, 2 * n * scale), tokens) for n in chosen.streams),
            *(Shape(n, max(50 * scale, 4 * n * scale), 1) for n in chosen.streams),
        ],
        setup=servers.EngineSetup(
            model=chosen.model,
            dtype=chosen.dtype,
            max_model_len=2048,
            max_num_seqs=max(chosen.streams),
            eager=not chosen.no_eager,
            gpu_share=chosen.gpu_share,
        ),
        profile=chosen.profile,
        json_file=chosen.json or OUT / f"frontend-{time.strftime('%Y%m%d-%H%M%S')}.json",
    )


def run_rounds(
    running: list[servers.Server], client: Worker, shapes: list[Shape], rounds: int
) -> Results:
    """Every load on every server in turn; the order turns from round to round. The first
    round warms up and is not counted."""
    results = Results()
    other = machine.OtherWork()
    for number in range(-1, rounds):
        for shape in shapes:
            small = Shape(shape.streams, shape.streams, min(shape.tokens, 16))
            load = shape if number >= 0 else small
            turn = number % len(running)
            for server in running[turn:] + running[:turn]:
                # The same prompts for both, never seen before.
                seed = 1000 * (number + 2) + shape.streams + 7 * shape.per_request
                sample = measure(server, client, load, seed, other)
                if len(running) > 1:
                    server.freeze()
                if number >= 0:
                    results.add(server.name, shape, sample)
        say(f"  round {number + 1} of {rounds}")
    results.other_work = other.shares
    return results


def beside_vllm(plan: Plan, client: Worker) -> Results:
    """Part one."""
    if not has_module("vllm"):
        raise ServerFault("vLLM is not installed: make test, or pip install 'llm-gateway[vllm]'")
    with contextlib.ExitStack() as stack:
        settings = servers.gateway_settings(plan.setup)
        log = OUT / "logs" / "frontend-gateway.log"
        ours = stack.enter_context(servers.gateway(tables.GATEWAY, settings, log))
        ours.wait_ready()
        ours.freeze()
        log = OUT / "logs" / "frontend-vllm-serve.log"
        theirs = stack.enter_context(servers.vllm_serve(plan.setup, log))
        theirs.wait_ready()
        theirs.freeze()
        return run_rounds([ours, theirs], client, plan.shapes, plan.rounds)


def with_fake_engine(plan: Plan, client: Worker) -> Results:
    """Part two."""
    log = OUT / "logs" / "frontend-fake.log"
    with servers.gateway(tables.FAKE, FAKE_SETTINGS, log) as server:
        server.wait_ready()
        return run_rounds([server], client, plan.fake_shapes, plan.rounds)


def profile(plan: Plan, client: Worker, part: str) -> str:
    """Load a sampled gateway with many streams."""
    settings = FAKE_SETTINGS if part == "fake" else servers.gateway_settings(plan.setup)
    out = OUT / f"frontend-profile-{part}.json"
    shape = max(
        (plan.fake_shapes if part == "fake" else plan.shapes), key=lambda s: s.streams * s.tokens
    )
    with servers.gateway(part, settings, OUT / "logs" / "frontend-profile.log", out) as server:
        server.wait_ready()
        other = machine.OtherWork()
        measure(server, client, shape, 1, other)
        server.process.send_signal(signal.SIGUSR2)
        for seed in range(plan.rounds):
            measure(server, client, shape, 2 + seed, other)
    return tables.profile_table(out)


def main(argv: list[str] | None = None) -> int:
    """Run the plan; the exit status says whether the numbers exist, not how good they are."""
    plan = parse(sys.argv[1:] if argv is None else argv)
    # Frozen servers must not outlive the harness: leave by the way that closes them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    described = machine.describe() | {"vllm": installed_version()}
    say(f"{described['cpu']}, load average {machine.load_average()}")
    document: dict[str, Any] = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": described,
        "load_average_at_start": machine.load_average(),
        "plan": {**asdict(plan), "json_file": plan.json_file.name},
    }
    failed = False
    everything = Results()
    with Pool() as pool:
        load_job = Job("", "", 1, 0, 0, {})
        argv = [sys.executable, "-m", "benchmarks.frontend.client"]
        client = Worker("client", argv, load_job, OUT / "logs" / "frontend-client.log")
        pool.workers.append(client)
        client.wait_ready(60)
        if plan.profile is not None:
            print(f"\n### Where the time goes ({plan.profile})\n")
            print(profile(plan, client, plan.profile))
            return 0
        parts: dict[str, Callable[[Plan, Worker], Results]] = {
            "vllm": beside_vllm,
            "fake": with_fake_engine,
        }
        for part in plan.parts:
            say(f"part {part}")
            try:
                results = parts[part](plan, client)
            except (ServerFault, WorkerError) as error:
                say(f"  {error}")
                document.setdefault("errors", []).append(str(error))
                failed = True
                continue
            document[part] = results.as_json()
            everything.samples |= results.samples
            everything.other_work += results.other_work
    print(f"\nvLLM {described['vllm']}, {described['cpu']}. {tables.disturbance(everything)}")
    if "vllm" in document:
        print(f"\n### Beside vllm serve\n\n{tables.beside_table(everything, plan.shapes)}")
    if "fake" in document:
        print(f"\n### The gateway alone\n\n{tables.fake_table(everything, plan.fake_shapes)}")
    found = tables.goals(everything, plan.shapes, plan.fake_shapes)
    print(f"\n### Goals\n\n{goals_table(found)}")
    document["goals"] = [asdict(goal) for goal in found]
    document["other_work"] = everything.other_work
    plan.json_file.parent.mkdir(parents=True, exist_ok=True)
    plan.json_file.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\nAll samples: {plan.json_file}")
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
