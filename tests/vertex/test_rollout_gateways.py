"""``rollout`` with two real gateways behind Vertex AI's front, watched by probes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from invoke_front import ENDPOINT, VertexFront
from monitor_emulator import MonitoringEmulator
from prober_container import ContainerProber, start_container
from server_process import MESSAGES, PATIENCE_S, SENTENCE, ServerProcess
from typer.testing import CliRunner, Result
from vertex_specs import IMAGE, Workbench, changed

from deploy.vertex import VertexError
from deploy.vertex.rollout import Done, RolledBack, Watching, rollout
from deploy.vertex.rollout_sources import MonitoringSource, open_probes
from gateway.cli import app

NEWER = IMAGE.replace("1.0.0", "1.1.0")
# Every look is the last of its step.
AT_ONCE = {"watch_s": 0, "min_requests": 1, "max_latency_ms": 30_000}
OLD, NEW = "7001", "7002"
PROMTOOL = shutil.which("promtool")


@pytest.fixture(scope="module")
def gateway(
    container: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., ServerProcess]]:
    """Containers with these options of the fake engine; each is started once."""
    running: dict[str, ServerProcess] = {}

    def get(**options: Any) -> ServerProcess:
        if not options:
            return container
        key = json.dumps(options)
        if key not in running:
            folder = tmp_path_factory.mktemp("container")
            running[key] = start_container(folder, options={"text": SENTENCE, **options})
            ContainerProber(running[key]).wait_routed()
        return running[key]

    yield get
    for server in running.values():
        server.kill()


@pytest.fixture
def front(
    gateway: Callable[..., ServerProcess], bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> Iterator[VertexFront]:
    """Routes by the emulated endpoint's own split."""
    running = VertexFront({OLD: gateway().url, NEW: gateway().url})
    endpoints = bench.emulator.rules.endpoints
    running.split = lambda: dict(endpoints[bench.spec.endpoint_name].traffic_split)
    monkeypatch.setenv("VERTEX_INVOKE_ENDPOINT", running.url)
    yield running
    running.close()


def start(bench: Workbench, **bounds: Any) -> None:
    bench.use(changed())
    bench.apply()
    newer = changed(rollout={**AT_ONCE, **bounds}, deployments__0__image=NEWER)
    bench.use(newer)


def carry_out(bench: Workbench, front: VertexFront) -> Done:
    """Twenty callers ask before every look."""

    class Asked:
        """Counts nothing itself: the probes do."""

        def __init__(self, endpoint: Any) -> None:
            self.probes = open_probes(bench.spec, endpoint)

        def begin(self, deployed_id: str) -> None:
            self.probes.begin(deployed_id)

        def look(self) -> Any:
            ask(front, 20)
            return self.probes.look()

        def close(self) -> None:
            self.probes.close()

    return rollout(
        bench.cloud,
        bench.spec,
        None,
        lambda endpoint: Watching([Asked(endpoint)]),
        bench.told.append,
    )


def ask(front: VertexFront, count: int) -> None:
    with httpx.Client(timeout=PATIENCE_S) as client:
        for _ in range(count):
            url = f"{front.url}{ENDPOINT}/invoke/v1/chat/completions"
            client.post(url, json={"messages": MESSAGES, "max_tokens": 2})


def test_rollout_loses_no_request(bench: Workbench, front: VertexFront) -> None:
    start(bench)
    assert carry_out(bench, front).steps == [10, 50, 100]
    ask(front, 5)
    assert {status for _, status in front.served} == {200}
    by_version = [deployed for deployed, _ in front.served]
    assert len(by_version) == 3 * (20 + 1) + 5
    assert by_version.count(OLD) >= 15
    assert set(by_version[-26:]) == {NEW}


@pytest.mark.parametrize(
    ("options", "bounds", "told"),
    [
        ({"overloaded": True}, {}, r"100.0% of 1 requests failed"),
        ({"ttft_s": 0.5}, {"max_latency_ms": 300}, r"ms, more than max_latency_ms 300"),
    ],
)
def test_rollout_takes_a_bad_gateway_back(
    bench: Workbench,
    front: VertexFront,
    gateway: Callable[..., ServerProcess],
    options: dict[str, Any],
    bounds: dict[str, Any],
    told: str,
) -> None:
    start(bench, **bounds)
    front.containers[NEW] = gateway(**options).url
    with pytest.raises(RolledBack, match=told):
        carry_out(bench, front)
    assert front.split() == {OLD: 100}
    seen = len(front.served)
    ask(front, 5)
    assert front.served[seen:] == [(OLD, 200)] * 5


def command(bench: Workbench, name: str, *options: str) -> Result:
    return CliRunner().invoke(app, ["deploy", "vertex", name, str(bench.file), *options])


def test_rollout_from_the_command_line(
    bench: Workbench, front: VertexFront, gateway: Callable[..., ServerProcess]
) -> None:
    start(bench)
    refused = command(bench, "rollout")
    assert refused.exit_code == 1
    assert "gets 10, 50, 100 % of its deployment's traffic" in refused.stderr
    assert "add --yes" in refused.stderr
    done = command(bench, "rollout", "--watch", "probes", "--keep-old", "--yes", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["steps"] == [10, 50, 100]
    assert front.split() == {NEW: 100}
    back = command(bench, "rollback", "--yes")
    assert back.exit_code == 0, back.output
    assert back.stdout.startswith("the traffic is back: llama-")
    assert front.split() == {OLD: 100}
    again = command(bench, "rollback", "--yes")
    assert again.exit_code == 1
    assert "no rollout of chat is under way or kept" in again.stderr
    front.containers["7003"] = gateway(overloaded=True).url
    bad = command(bench, "rollout", "--watch", "probes", "--yes")
    assert bad.exit_code == 1
    assert "has been rolled back: 100.0% of 1 requests failed" in bad.stderr
    assert "Traceback" not in bad.output


def test_rollout_probes_need_invoke(bench: Workbench) -> None:
    spec = bench.use(changed(mode="predict"))
    with pytest.raises(VertexError, match="take --watch monitoring"):
        open_probes(spec, None)


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (make services)")
def test_rollout_asks_monitoring_the_right_thing(
    tmp_path: Path, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the queries come to, evaluated by Prometheus itself."""
    from deploy.vertex.monitor_rest import open_monitoring

    endpoint = bench.spec.endpoint_id
    clock = [0.0]
    with MonitoringEmulator() as cloud:
        monkeypatch.setenv("MONITORING_API_ENDPOINT", cloud.url)
        source = MonitoringSource(open_monitoring("my-project"), endpoint, lambda: clock[0])
        source.begin(NEW)
        clock[0] = 600.0
        source.look()
        source.close()
        requests, errors, p95 = cloud.asked
    prefix = "aiplatform_googleapis_com:prediction_online_"
    series = []
    for deployed, failing in ((NEW, 6), (OLD, 0)):
        own = (
            'monitored_resource="aiplatform.googleapis.com/Endpoint",'
            f'endpoint_id="{endpoint}",deployed_model_id="{deployed}"'
        )
        for code, step in (("200", 54), ("500", failing), ("429", 0)):
            name = f'{prefix}response_count{{{own},response_code="{code}"}}'
            series.append({"series": name, "values": f"0+{step}x20"})
        slow = deployed == NEW
        for le, step in (("100", 0 if slow else 60), ("1000", 60), ("+Inf", 60)):
            name = f'{prefix}prediction_latencies_bucket{{{own},latency_type="total",le="{le}"}}'
            series.append({"series": name, "values": f"0+{step}x20"})
    cases = [(requests, 600), (errors, 60), (p95, 955)]
    test = {
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {"expr": e, "eval_time": "15m", "exp_samples": [{"labels": "{}", "value": v}]}
                    for e, v in cases
                ],
            }
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [str(PROMTOOL), "test", "rules", "tests.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
