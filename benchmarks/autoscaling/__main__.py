"""``make bench-autoscaling``: the closed loop for longer than a test, as a table and a picture.

A real Prometheus scrapes real gateways; the shipped manifests decide how many there are. Tables go
to stdout as Markdown, everything behind them to a JSON file, progress to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import yaml

from benchmarks import machine
from benchmarks.autoscaling.hpa import Autoscaler
from benchmarks.autoscaling.load import Bench
from benchmarks.autoscaling.loop import MODEL, Look, Loop, by_hpa, by_keda, closed_loop
from benchmarks.autoscaling.manifests import (
    K8S,
    ManifestError,
    adapter_rules,
    faster,
    hpa_of,
    read,
    scaled_object,
)
from benchmarks.autoscaling.plot import Line, Panel, svg
from benchmarks.autoscaling.processes import LoopError
from benchmarks.autoscaling.prometheus import PrometheusError
from benchmarks.report import table

ROOT = Path(__file__).parents[2]
ENGINE_S_PER_TOKEN = 0.15
OUTPUT_TOKENS = 20
SLOTS = 16
STAGES = (4, 12, 24, 48, 48, 24, 12, 4)
END_S = 600.0
ZERO = K8S / "overlays" / "gpu-vllm-with-cpu-fallback"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does.

    Attributes:
        factor: by how much time runs faster than the manifests think.
        stage_s: seconds of each stage of the load.
        most: replicas, in place of the manifest's maximum.
    """

    factor: float
    stage_s: float
    most: int
    json_file: Path
    svg_file: Path | None


def main(argv: list[str] | None = None) -> int:
    """Run it; returns the exit code."""
    plan = _plan(argv)
    engine = {
        "ENGINE": "fake",
        "SERVED_MODEL_NAME": MODEL,
        "MAX_NUM_SEQS": str(SLOTS),
        "ENGINE_OPTIONS": json.dumps({"itl_s": ENGINE_S_PER_TOKEN}),
    }
    try:
        with tempfile.TemporaryDirectory() as folder:
            ramp = _ramp(plan, engine, Path(folder) / "ramp")
            zero = _from_zero(plan, engine, Path(folder) / "zero")
    except (LoopError, PrometheusError, ManifestError) as error:
        sys.stderr.write(f"autoscaling: {error}\n")
        return 1
    document = {"machine": machine.describe(), "factor": plan.factor, "ramp": ramp, "zero": zero}
    plan.json_file.parent.mkdir(exist_ok=True)
    plan.json_file.write_text(json.dumps(document, indent=1))
    sys.stdout.write(_tables(plan, ramp, zero))
    sys.stderr.write(f"written: {plan.json_file}\n")
    if plan.svg_file is not None:
        plan.svg_file.write_text(_picture(plan, ramp["looks"]))
        sys.stderr.write(f"written: {plan.svg_file}\n")
    return 0


def _plan(argv: list[str] | None) -> Plan:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.autoscaling", description=__doc__)
    parser.add_argument("--factor", type=float, default=20.0, help="how much faster time runs")
    parser.add_argument("--stage", type=float, default=20.0, help="seconds of each stage of load")
    parser.add_argument("--most", type=int, default=4, help="replicas at most")
    parser.add_argument("--svg", type=Path, default=None, help="write the picture here")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    out = ROOT / "bench-results" / f"autoscaling-{stamp}.json"
    parser.add_argument("--out", type=Path, default=out, help="write all figures here")
    given = parser.parse_args(argv)
    return Plan(given.factor, given.stage, given.most, given.out, given.svg)


def _ramp(plan: Plan, engine: dict[str, str], folder: Path) -> dict[str, Any]:
    """Replicas of the base's HPA under a load that comes and goes."""
    hpa = faster(hpa_of(read(K8S / "base" / "hpa.yaml")), plan.factor)
    hpa = replace(hpa, min_replicas=1, max_replicas=plan.most)
    rules = adapter_rules(read(K8S / "components" / "prometheus-adapter" / "rules.yaml"))
    decider = by_hpa(Autoscaler(hpa), rules, plan.factor)
    with closed_loop(folder, engine, decider=decider, factor=plan.factor, replicas=1) as loop:
        length = ("--duration", str(plan.stage_s))
        bench = Bench(folder / "bench", loop.router.url, STAGES, OUTPUT_TOKENS, *length)
        try:
            loop.run_until(_following(loop, lambda: bench.over), "the load", END_S)
            result = bench.result()
        finally:
            bench.kill()
        loop.run_until(_following(loop, lambda: len(loop.replicas.pods) == 1), "one replica", END_S)
        engines = [one for pod in loop.replicas.every() for one in pod.gateway.requests()]
        return {
            "stages": [
                {name: stage[name] for name in KEPT if name in stage} for stage in result["stages"]
            ],
            "completed": result["completed"],
            "failed": result["failed"],
            "router_requests": len(_chats(loop.router.requests())),
            "engine_requests": len(_chats(engines)),
            "exits": loop.replicas.exits,
            "looks": [asdict(look) for look in loop.looks],
        }


KEPT = (
    *("name", "max_concurrency", "began", "ended", "completed", "failed", "output_throughput"),
    *("median_ttft_ms", "p95_ttft_ms", "median_e2el_ms", "p95_e2el_ms"),
)


def _chats(requests: list[dict[str, Any]]) -> list[str]:
    return [one["request_id"] for one in requests if one["route"].endswith("/chat/completions")]


def _following(loop: Loop, condition: Any) -> Any:
    """The condition; says on the way when the number of replicas changes."""
    last = [loop.replicas.count]

    def check() -> bool:
        if loop.looks and loop.looks[-1].replicas != last[0]:
            look = loop.looks[-1]
            last[0] = look.replicas
            sys.stderr.write(f"{look.at_s:6.1f} s: replicas {look.replicas}\n")
        return bool(condition())

    return check


def _from_zero(plan: Plan, engine: dict[str, str], folder: Path) -> dict[str, Any]:
    """One request to no replica at all, as KEDA and the gateway in front handle it."""
    scaled = scaled_object(read(ZERO / "engine-scaledobject.yaml"))
    models = yaml.safe_load((ZERO / "gateway" / "gateway.yaml").read_text())["models"]
    model = next(model for model in models if model["name"] == MODEL)
    model.pop("fallbacks", None)
    decider = by_keda(scaled, plan.factor)
    with closed_loop(
        folder, engine, model=model, decider=decider, factor=plan.factor, replicas=0
    ) as loop:
        body = {"model": MODEL, "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}
        data = json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        request = Request(f"{loop.router.url}/v1/chat/completions", data, headers)

        def ask() -> int:
            with urlopen(request, timeout=END_S) as reply:
                reply.read()
                return int(reply.status)

        loop.run_until(lambda: bool(loop.looks and loop.looks[-1].values), "the metric", END_S)
        began = time.monotonic() - loop.began
        with ThreadPoolExecutor() as pool:
            asked = pool.submit(ask)
            loop.run_until(asked.done, "an answer", END_S)
        answered = time.monotonic() - loop.began
        loop.run_until(lambda: not loop.replicas.pods, "no replica again", END_S)
        decided = next(look.at_s for look in loop.looks if look.replicas)
        listed = next(look.at_s for look in loop.looks if look.ready)
        return {
            "status": asked.result(),
            "decided_s": decided - began,
            "ready_s": listed - began,
            "answered_s": answered - began,
            "gone_s": loop.looks[-1].at_s - began,
        }


def _tables(plan: Plan, ramp: dict[str, Any], zero: dict[str, Any]) -> str:
    rows = [
        [
            str(stage["max_concurrency"]),
            str(stage["completed"]),
            str(stage["failed"]),
            f"{stage['output_throughput']:.0f}",
            f"{stage['median_ttft_ms'] / 1000:.2f}",
            f"{stage['p95_ttft_ms'] / 1000:.2f}",
        ]
        for stage in ramp["stages"]
    ]
    names = ["callers", "answered", "lost", "tokens/s", "first token, median s", "95 % s"]
    looks = [Look(**look) for look in ramp["looks"]]
    steps = [
        f"{look.at_s:.0f} s: {look.replicas}"
        for before, look in pairwise(looks)
        if look.replicas != before.replicas
    ]
    lines = [
        f"Time runs {plan.factor:g} times as fast as the manifests think.",
        "",
        table(names, rows),
        "",
        f"Replicas: {looks[0].replicas} at first; {', '.join(steps)}.",
        f"Answered by the router: {ramp['router_requests']}, by the replicas: "
        f"{ramp['engine_requests']}, lost: {ramp['failed']}. "
        f"Exit codes of those that went: {ramp['exits']}.",
        "",
        f"From none: decided after {zero['decided_s']:.1f} s, ready after "
        f"{zero['ready_s']:.1f} s, answered ({zero['status']}) after {zero['answered_s']:.1f} s, "
        f"none again after {zero['gone_s']:.1f} s.",
    ]
    return "\n".join(lines) + "\n"


def _picture(plan: Plan, looks: list[dict[str, Any]]) -> str:
    def sums(name: str) -> Line:
        metric = f"vllm_num_requests_{name}"
        return Line(name, [look["values"].get(metric, 0.0) for look in looks])

    replicas = [
        Line("asked for", [look["replicas"] for look in looks]),
        Line("ready", [look["ready"] for look in looks]),
    ]
    panels = [
        Panel("Requests, as the adapter tells them", [sums("running"), sums("waiting")]),
        Panel("Replicas", replicas),
    ]
    unit = f"seconds; the manifests' time is {plan.factor:g} times that"
    return svg([look["at_s"] for look in looks], panels, unit)


if __name__ == "__main__":
    sys.exit(main())
