"""``make bench-proxy``: what the gateway adds on the way to another server, next to LiteLLM.

Client and fake upstream share one core, the proxy under test has the other. Each round measures
the direct way, the gateway and LiteLLM in turn, the other proxy being frozen. Tables go to stdout
as Markdown, everything behind them to a JSON file, progress to stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.environments import PeerUnavailable, say
from benchmarks.frontend.servers import Server
from benchmarks.frontend.tables import profile_table
from benchmarks.pool import ROOT, Pool, Worker, WorkerError
from benchmarks.proxy import servers, tables
from benchmarks.proxy.measure import DIRECT, Bench, LoadShape, Results, Target
from benchmarks.report import goals_table
from benchmarks.served import ServerFault
from benchmarks.workers.wire import Job

OUT = ROOT / "bench-results"
KINDS = (False, True)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run measures.

    Attributes:
        rate: requests per second for the gateway. slow_rate: one that LiteLLM keeps up with.
        seconds: of each load. pieces, gap_ms: of a stream.
    """

    rounds: int
    rate: float
    slow_rate: float
    seconds: float
    connections: list[int]
    pieces: int
    gap_ms: float
    litellm: bool
    profile: str | None
    json_file: Path

    @property
    def open_shapes(self) -> list[LoadShape]:
        """Loads for latency."""
        rates = [self.slow_rate, self.rate]
        return [LoadShape(stream, rate=rate) for stream in KINDS for rate in rates]

    @property
    def ramp(self) -> list[LoadShape]:
        """Loads for throughput."""
        return [LoadShape(stream, connections=n) for stream in KINDS for n in self.connections]


def numbers(text: str) -> list[int]:
    """A comma-separated list of positive numbers."""
    found = [int(part) for part in text.split(",")]
    if not found or min(found) < 1 or max(found) > 1024:
        raise argparse.ArgumentTypeError("numbers from 1 to 1024")
    return found


def parse(argv: list[str]) -> Plan:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round: does it run?")
    parser.add_argument("--rounds", type=int, help="default 5")
    parser.add_argument("--seconds", type=float, help="of each load (default 8)")
    parser.add_argument("--rate", type=float, default=500.0, help="requests/s (default 500)")
    parser.add_argument("--slow-rate", type=float, default=20.0, help="LiteLLM's (default 20)")
    parser.add_argument("--connections", type=numbers, help="ramp (default 1,8,64,256)")
    parser.add_argument("--pieces", type=int, default=16, help="of a stream (default 16)")
    parser.add_argument("--gap-ms", type=float, default=5.0, help="between them (default 5)")
    parser.add_argument("--no-litellm", action="store_true", help="the gateway alone")
    parser.add_argument("--profile", choices=("whole", "stream"), help="sample the gateway instead")
    parser.add_argument("--json", type=Path, help="file for the results")
    chosen = parser.parse_args(argv)
    plan = Plan(
        rounds=chosen.rounds or (1 if chosen.quick else 5),
        rate=chosen.rate,
        slow_rate=chosen.slow_rate,
        seconds=chosen.seconds or (2.0 if chosen.quick else 8.0),
        connections=chosen.connections or ([8, 64] if chosen.quick else [1, 8, 64, 256]),
        pieces=chosen.pieces,
        gap_ms=chosen.gap_ms,
        litellm=not chosen.no_litellm,
        profile=chosen.profile,
        json_file=chosen.json or OUT / f"proxy-{time.strftime('%Y%m%d-%H%M%S')}.json",
    )
    if plan.rounds < 1 or min(plan.rate, plan.slow_rate, plan.seconds, plan.pieces) <= 0:
        raise SystemExit("--rounds, --rate, --slow-rate, --seconds and --pieces are above zero")
    return plan


def run_rounds(plan: Plan, bench: Bench, direct: Target, proxies: list[Target]) -> None:
    """Every load on every target in turn; the order turns from round to round. The first round
    warms up and is not counted."""
    for number in range(-1, plan.rounds):
        seconds = plan.seconds if number >= 0 else min(1.0, plan.seconds)
        for shape in [*plan.open_shapes, *plan.ramp]:
            targets = [target for target in proxies if fits(plan, target, shape)]
            if shape.rate:
                targets = [direct, *targets]
            turn = number % len(targets)
            for target in targets[turn:] + targets[:turn]:
                bench.measure(target, shape, seconds, 100 + number, keep=number >= 0)
        say(f"  round {number + 1} of {plan.rounds}")


def fits(plan: Plan, target: Target, shape: LoadShape) -> bool:
    """An open loop beyond what a server sustains measures nothing but its queue."""
    return target.name != servers.LITELLM or shape.rate in (0.0, plan.slow_rate)


def ready(server: Server) -> Server:
    """Up, and frozen until it is measured."""
    server.wait_ready()
    server.freeze()
    return server


def measured(plan: Plan, client: Worker, cores: servers.Cores, folder: Path) -> Results:
    """All rounds."""
    logs = OUT / "logs"
    with contextlib.ExitStack() as stack:
        fake = stack.enter_context(
            servers.upstream(plan.pieces, plan.gap_ms, cores, logs / "proxy-upstream.log")
        )
        fake.wait_ready()
        setup = servers.GatewaySetup(folder)
        key = setup.prepare(fake.port)
        ours = ready(stack.enter_context(setup.serve(cores, logs / "proxy-gateway.log")))
        proxies = [Target(servers.GATEWAY, ours, ours.port, key)]
        if plan.litellm:
            context, their_key = servers.litellm(
                folder, fake.port, cores, logs / "proxy-litellm.log"
            )
            theirs = ready(stack.enter_context(context))
            proxies.append(Target(servers.LITELLM, theirs, theirs.port, their_key))
        bench = Bench(client, fake, plan.pieces)
        run_rounds(plan, bench, Target(DIRECT, None, fake.port, key), proxies)
    return bench.results


def profiled(plan: Plan, client: Worker, cores: servers.Cores, folder: Path) -> str:
    """Load a sampled gateway."""
    out = OUT / f"proxy-profile-{plan.profile}.json"
    logs = OUT / "logs"
    shape = LoadShape(plan.profile == "stream", connections=max(plan.connections))
    setup = servers.GatewaySetup(folder)
    with servers.upstream(plan.pieces, plan.gap_ms, cores, logs / "proxy-upstream.log") as fake:
        fake.wait_ready()
        key = setup.prepare(fake.port)
        with setup.serve(cores, logs / "proxy-profile.log", out) as server:
            server.wait_ready()
            bench = Bench(client, fake, plan.pieces)
            target = Target(servers.GATEWAY, server, server.port, key)
            bench.measure(target, shape, 1.0, 1, keep=False)
            server.process.send_signal(signal.SIGUSR2)
            sample = bench.measure(target, shape, plan.seconds, 2, keep=True)
    cost = f"{sample.cpu_ms:.2f} ms of CPU per request, sampling included"
    return f"{sample.requests} requests, {cost}\n\n{profile_table(out)}"


def main(argv: list[str] | None = None) -> int:
    """Run the plan; the exit status says whether the numbers exist, not how good they are."""
    plan = parse(sys.argv[1:] if argv is None else argv)
    # Frozen servers must not outlive the harness: leave by the way that closes them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    described = machine.describe()
    cores = servers.Cores.of_machine()
    say(f"{described['cpu']}, load average {machine.load_average()}")
    if cores.proxy is None:
        say("  one core only: proxy, client and upstream share it")
    document: dict[str, Any] = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": described,
        "cores": asdict(cores),
        "load_average_at_start": machine.load_average(),
        "plan": {**asdict(plan), "json_file": plan.json_file.name},
    }
    with Pool() as pool, tempfile.TemporaryDirectory(prefix="bench-proxy-") as name:
        client_argv = servers.pinned([sys.executable, "-m", "benchmarks.proxy.load"], cores.load)
        job = Job("", "", 1, 0, 0, {})
        client = Worker("client", client_argv, job, OUT / "logs" / "proxy-client.log")
        pool.workers.append(client)
        client.wait_ready(60)
        try:
            if plan.profile is not None:
                print(f"\n### Where the time goes ({plan.profile})\n")
                print(profiled(plan, client, cores, Path(name)))
                return 0
            results = measured(plan, client, cores, Path(name))
            recorded = servers.GatewaySetup(Path(name)).recorded()
        except (ServerFault, WorkerError, PeerUnavailable) as error:
            say(f"  {error}")
            return 1
    report(plan, results, recorded, described["cpu"])
    found = tables.goals(results, plan.open_shapes, plan.ramp, recorded)
    document |= {
        "samples": results.as_json(),
        "sent": results.sent,
        "recorded": recorded,
        "goals": [asdict(goal) for goal in found],
        "other_work": results.other_work,
    }
    plan.json_file.parent.mkdir(parents=True, exist_ok=True)
    plan.json_file.write_text(json.dumps(document, indent=1) + "\n")
    print(f"\n### Goals\n\n{goals_table(found)}\n\nAll samples: {plan.json_file}")
    return 0


def report(plan: Plan, results: Results, recorded: int, cpu: str) -> None:
    """The tables, as Markdown."""
    print(f"\n{cpu}. {tables.disturbance(results)}")
    print(f"\n### Added latency\n\n{tables.latency_table(results, plan.open_shapes)}")
    print(f"\n### Requests per second on one core\n\n{tables.ramp_table(results, plan.ramp)}")
    print(f"\n### Memory\n\n{tables.memory_table(results)}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
