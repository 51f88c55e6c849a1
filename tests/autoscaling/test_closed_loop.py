"""A real Prometheus, real gateways and the shipped manifests: replicas follow the load, and
nothing is lost on the way. Only the cluster is missing, and its clock runs faster."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import yaml
from prometheus_process import needs_prometheus

from benchmarks.autoscaling.hpa import Autoscaler
from benchmarks.autoscaling.load import Bench
from benchmarks.autoscaling.loop import Loop, by_hpa, by_keda, closed_loop
from benchmarks.autoscaling.manifests import (
    K8S,
    adapter_rules,
    faster,
    hpa_of,
    read,
    scaled_object,
)
from benchmarks.autoscaling.processes import Gateway

pytestmark = needs_prometheus

# The slots of an engine are those that the base's target for running requests is made for.
ENGINE = {
    "ENGINE": "fake",
    "SERVED_MODEL_NAME": "chat",
    "MAX_NUM_SEQS": "16",
    "ENGINE_OPTIONS": json.dumps({"itl_s": 0.15}),
}
TOKENS = 8
FEW, MANY = 4, 40
MOST = 3
PATIENCE_S = 120.0


def completed(loop: Loop) -> tuple[Counter[str], Counter[str]]:
    """Ids of the answered requests, at the router and at the replicas."""

    def ids(requests: list[dict[str, Any]]) -> Counter[str]:
        chats = [one for one in requests if one["route"].endswith("/chat/completions")]
        assert all(one["outcome"] == "completed" for one in chats), chats
        return Counter(one["request_id"] for one in chats)

    engines = [one for pod in loop.replicas.every() for one in pod.gateway.requests()]
    return ids(loop.router.requests()), ids(engines)


def first(loop: Loop) -> Gateway:
    return loop.replicas.pods[0].gateway


def counted(loop: Loop) -> float:
    """Completed chat completions by the router's own counter."""
    text = httpx.get(f"{loop.router.url}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("gateway_requests_total{")]
    chats = [line for line in lines if "/chat/completions" in line and '"completed"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in chats)


def test_replicas_follow_the_load_and_no_request_is_lost(tmp_path: Path) -> None:
    factor = 60.0
    shipped = hpa_of(read(K8S / "base" / "hpa.yaml"))
    rules = adapter_rules(read(K8S / "components" / "prometheus-adapter" / "rules.yaml"))
    # What this machine has room for; everything else is as shipped.
    hpa = replace(faster(shipped, factor), min_replicas=1, max_replicas=MOST)
    decider = by_hpa(Autoscaler(hpa), rules, factor)
    results: list[dict[str, Any]] = []

    with closed_loop(tmp_path, ENGINE, decider=decider, factor=factor, replicas=1) as loop:

        def load(callers: int, requests: int) -> None:
            folder = tmp_path / f"bench{len(results)}"
            length = ("--num-prompts", str(requests))
            bench = Bench(folder, loop.router.url, [callers], TOKENS, *length)
            try:
                loop.run_until(lambda: bench.over, "the load", PATIENCE_S)
                results.append(bench.result())
            finally:
                bench.kill()

        scraped = {f"{gateway.url}/metrics": "up" for gateway in (loop.router, first(loop))}
        loop.run_until(lambda: loop.prometheus.scraped() == scraped, "scrapes", PATIENCE_S)
        load(FEW, 8)
        begun = len(loop.looks)
        # Work, not time: the slower the machine starts replicas, the longer it lasts.
        while loop.replicas.ready < 2:
            load(MANY, 320)
            assert len(results) < 6, loop.looks
        over = len(loop.looks)
        while loop.replicas.count > 1:
            load(FEW, 16)
            assert len(results) < 30, loop.looks
        loop.run_until(lambda: len(loop.replicas.pods) == 1, "the last one to end", PATIENCE_S)

        counts = [look.replicas for look in loop.looks]
        assert set(counts[:begun]) == {1}
        assert max(counts[begun:over]) == MOST
        assert counts[over:] == sorted(counts[over:], reverse=True)
        assert set(loop.replicas.exits) == {0}
        assert [run["failed"] for run in results] == [0] * len(results)
        router, engines = completed(loop)
        assert router == engines
        assert set(router.values()) == {1}
        assert len(router) >= sum(run["completed"] for run in results)
        assert counted(loop) == len(router)
        assert sum(bool(pod.gateway.requests()) for pod in loop.replicas.every()) > 1


def test_a_request_that_finds_no_replica_starts_one_and_is_answered(tmp_path: Path) -> None:
    factor = 120.0
    overlay = K8S / "overlays" / "gpu-vllm-with-cpu-fallback"
    scaled = scaled_object(read(overlay / "engine-scaledobject.yaml"))
    models = yaml.safe_load((overlay / "gateway" / "gateway.yaml").read_text())["models"]
    model = next(model for model in models if model["name"] == "chat")
    # Nobody stands in: what is answered was answered by the replica that was started for it.
    model = {name: value for name, value in model.items() if name != "fallbacks"}
    decider = by_keda(scaled, factor)

    with closed_loop(
        tmp_path, ENGINE, model=model, decider=decider, factor=factor, replicas=0
    ) as loop:
        # The queue of a model that nobody has asked for is there already, at 0.
        loop.run_until(lambda: bool(loop.looks and loop.looks[-1].values), "it", PATIENCE_S)
        assert loop.looks[-1].values == {"trigger": 0.0}
        assert all(look.replicas == 0 for look in loop.looks)
        body = {"model": "chat", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        url = f"{loop.router.url}/v1/chat/completions"
        with ThreadPoolExecutor() as pool:
            asked = [pool.submit(httpx.post, url, json=body, timeout=90) for _ in range(3)]
            loop.run_until(lambda: all(one.done() for one in asked), "answers", PATIENCE_S)
        answers = [one.result() for one in asked]
        assert [answer.status_code for answer in answers] == [200] * 3
        assert {answer.json()["usage"]["completion_tokens"] for answer in answers} == {4}
        assert "awaited" in answers[0].headers["x-gateway-route"]
        assert max(look.replicas for look in loop.looks) == 1
        loop.run_until(lambda: not loop.replicas.pods, "no replica again", PATIENCE_S)
        router, engines = completed(loop)
        assert router == engines
        assert sorted(router.values()) == [1] * 3
        assert loop.replicas.exits == [0]
