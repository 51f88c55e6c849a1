"""The real gateway, started with the environment that the manifests give it: its routes, its
metrics' names, its keys, and the two layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from k8s_manifests import RENDERED, Manifests, Workload, rendered
from k8s_mutations import TWO_LAYERS
from k8s_pods import PROBES
from k8s_scaling import Exported, signals
from k8s_settings import SECRETS, mounted_file, values_of
from server_process import SENTENCE, ServerProcess

KEYS = SECRETS["llm-gateway-keys"]
CLIENT = KEYS["client-keys"].split(",")[0]
_ADMIN_PORT = re.compile(r"^admin +http://127\.0\.0\.1:(\d+)", re.MULTILINE)
_FAMILY = re.compile(r"^# TYPE (\S+) (\w+)$", re.MULTILINE)
_SAMPLE = re.compile(r'^([a-z_:]+)\{.*?\bmodel_name="([^"]*)"', re.MULTILINE)


class Pod(ServerProcess):
    """A container's process, with the environment of the manifests but for its addresses, its
    folders, and what ``instead`` says."""

    def __init__(
        self, folder: Path, manifests: Manifests, workload: Workload, text: str = "", **instead: str
    ):
        folder.mkdir()
        own = {
            "HOST": "127.0.0.1",
            "PORT": "0",
            "ADMIN_HOST": "127.0.0.1",
            "ADMIN_PORT": "0",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "HF_HOME": str(folder / "models"),
            "MODEL_CACHE_DIR": str(folder / "models"),
            "DATA_DIR": str(folder / "state"),
            "ONNX_THREADS": "1",
        }
        if text:
            (folder / "gateway.yaml").write_text(text)
            own["CONFIG_FILE"] = str(folder / "gateway.yaml")
        super().__init__(folder, **{**values_of(manifests, workload), **own, **instead})

    @property
    def admin_url(self) -> str:
        found = _ADMIN_PORT.search(self.out.read_text())
        assert found is not None, self.logs()
        return f"http://127.0.0.1:{found[1]}"

    def scrape(self, **headers: str) -> str:
        """/metrics as a monitor of these manifests asks for it."""
        told = {"authorization": f"Bearer {KEYS['metrics-key']}", **headers}
        answer = httpx.get(f"{self.admin_url}/metrics", headers=told, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.text


StartPod = Callable[..., Pod]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPod]:
    started: list[Pod] = []

    def new(name: str, workload: str = "llm-gateway", text: str = "", **instead: str) -> Pod:
        manifests = rendered(name)
        (found,) = (w for w in manifests.workloads() if w.name == workload)
        folder = tmp_path_factory.mktemp("pods") / "pod"
        started.append(Pod(folder, manifests, found, text, **instead))
        return started[-1]

    yield new
    for pod in started:
        pod.kill()


@pytest.fixture(scope="module")
def single(start: StartPod) -> Pod:
    """The pod of cpu-onnx, with the bundled model."""
    return start("cpu-onnx").wait_ready()


@pytest.fixture(scope="module")
def engine(start: StartPod) -> Pod:
    """The engine's pod of the two layers; the fake engine stands for vLLM."""
    options = f'{{"text": "{SENTENCE}"}}'
    return start(TWO_LAYERS, "llm-gateway-engine", ENGINE="fake", ENGINE_OPTIONS=options)


@pytest.fixture(scope="module")
def front(start: StartPod, engine: Pod) -> Pod:
    """The gateway's pod, with its gateway.yaml; only the engine's host is another."""
    manifests = rendered(TWO_LAYERS)
    (workload,) = (w for w in manifests.workloads() if w.name == "llm-gateway")
    text = mounted_file(manifests, workload, values_of(manifests, workload)["CONFIG_FILE"])
    assert text is not None
    address = f"127.0.0.1:{engine.wait_ready().port}"
    told = text.replace("llm-gateway-engine.llm-gateway.svc.cluster.local:8080", address)
    assert told != text
    return start(TWO_LAYERS, text=told).wait_ready()


def samples(text: str) -> dict[str, set[str]]:
    """Names of samples, as Prometheus stores them, with the models that have some."""
    found = {
        name + ("_total" if kind == "counter" and not name.endswith("_total") else ""): set[str]()
        for name, kind in _FAMILY.findall(text)
    }
    for name, model in _SAMPLE.findall(text):
        found.setdefault(name, set()).add(model)
    return found


@pytest.fixture(scope="module")
def exported(single: Pod, front: Pod) -> Callable[[str], Exported]:
    """What the pods export that an overlay's autoscalers look at."""
    return lambda name: samples((front if name == TWO_LAYERS else single).scrape())


def test_probes_and_ports(single: Pod) -> None:
    for path in PROBES.values():
        assert httpx.get(single.url + path).status_code == 200
    assert httpx.get(f"{single.url}/metrics").status_code == 401
    key = {"x-api-key": KEYS["metrics-key"]}
    assert httpx.get(f"{single.url}/metrics", headers=key).status_code == 404
    assert httpx.get(f"{single.admin_url}/metrics").status_code == 401
    assert httpx.get(f"{single.admin_url}/v1/models", headers=key).status_code == 404


@pytest.mark.parametrize("name", [name for name in RENDERED if name != "dev"])
def test_autoscalers_follow_what_is_exported(
    exported: Callable[[str], Exported], name: str
) -> None:
    assert list(signals(rendered(name), exported(name))) == []


def metric_of(m: Manifests) -> Any:
    return m.get("HorizontalPodAutoscaler", "llm-gateway")["spec"]["metrics"][0]["pods"]["metric"]


def trigger_of(m: Manifests) -> Any:
    return m.of("ScaledObject")[0]["spec"]["triggers"][0]["metadata"]


BROKEN: list[tuple[str, Callable[[Manifests], Any], str]] = [
    ("cpu-onnx", lambda m: metric_of(m).update(name="vllm:num_requests_waiting"), "adapter makes"),
    ("cpu-onnx", lambda m: metric_of(m).update(name="gpu_utilization"), "adapter makes"),
    ("cpu-onnx", lambda m: metric_of(m).update(name="vllm_kv_cache_usage_perc"), "what waits"),
    (
        "cpu-onnx",
        lambda m: m.objects.remove(m.get("ConfigMap", "llm-gateway-adapter-rules")),
        "ada",
    ),
    (
        "gke",
        lambda m: metric_of(m).update(name="prometheus.googleapis.com|vllm:num_waiting|gauge"),
        "exports no vllm:num_waiting",
    ),
    ("gpu-vllm", lambda m: trigger_of(m).update(query="avg(DCGM_FI_DEV_GPU_UTIL)"), "own load"),
    ("gpu-vllm", lambda m: trigger_of(m).update(query="sum(vllm:waiting{a='b'})"), "exports no"),
    (
        "gpu-vllm",
        lambda m: trigger_of(m).update(query="sum(vllm:num_requests_waiting{a='b'})"),
        "of any namespace",
    ),
    (TWO_LAYERS, lambda m: trigger_of(m).update(ignoreNullValues="true"), "counts as no load"),
    (
        TWO_LAYERS,
        lambda m: trigger_of(m).update(
            query='sum(vllm:num_requests_waiting{namespace="llm-gateway",model_name="chat"})'
        ),
        "the gateway exports no vllm:num_requests_waiting of chat",
    ),
]


@pytest.mark.parametrize(("name", "break_it", "told"), BROKEN)
def test_a_wrong_signal_is_told(
    exported: Callable[[str], Exported],
    name: str,
    break_it: Callable[[Manifests], Any],
    told: str,
) -> None:
    broken = rendered(name).copy()
    break_it(broken)
    assert any(told in fault for fault in signals(broken, exported(name)))


def test_engines_answer_behind_the_gateway_and_the_small_model_in_their_place(
    front: Pod, engine: Pod
) -> None:
    client = openai.OpenAI(base_url=f"{front.url}/v1", api_key=CLIENT, max_retries=0)
    messages: Any = [{"role": "user", "content": "Hello there"}]

    def ask() -> Any:
        return client.chat.completions.with_raw_response.create(
            model="chat", messages=messages, max_tokens=16
        )

    queue = 'gateway_queue_depth{class="default",model_name="chat"} 0.0'
    assert queue in front.scrape(), "an autoscaler sees a queue before the first request"
    answer = ask()
    assert answer.headers["x-gateway-target"].startswith("gpu/")
    assert SENTENCE.startswith(answer.parse().choices[0].message.content[:8])

    engine.kill()
    answer = ask()
    assert answer.headers["x-gateway-model"] == "small"
    assert answer.headers["x-gateway-degraded"]
    degraded = 'gateway_degraded_requests_total{model_name="chat"} 1.0'
    assert degraded in front.scrape(), "demand that the autoscaler has to see as well"


def test_metrics_without_a_key_for_the_endpoint_picker(start: StartPod) -> None:
    pod = start("inference-pool", ENGINE="fake").wait_ready()
    assert "vllm:num_requests_waiting{" in httpx.get(f"{pod.admin_url}/metrics").text
    assert httpx.get(f"{pod.admin_url}/admin/config").status_code == 401
    assert httpx.get(f"{pod.url}/v1/models").status_code == 401
    assert httpx.get(f"{pod.url}/metrics").status_code == 404


def test_gateways_start_before_any_engine_and_show_who_waits(start: StartPod) -> None:
    manifests = rendered(TWO_LAYERS)
    (workload,) = (w for w in manifests.workloads() if w.name == "llm-gateway")
    text = mounted_file(manifests, workload, values_of(manifests, workload)["CONFIG_FILE"])
    assert text is not None
    # As in a cluster with no engine: the headless Service's name leads nowhere (RFC 6761).
    pod = start(TWO_LAYERS, text=text.replace("svc.cluster.local", "svc.cluster.invalid"))
    pod.wait_ready()
    body = {"model": "chat", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    waiting = 'gateway_queue_depth{class="default",model_name="chat"} 1.0'
    with (
        ThreadPoolExecutor() as pool,
        httpx.Client(headers={"x-api-key": CLIENT}, timeout=120) as client,
    ):
        asked = pool.submit(client.post, f"{pod.url}/v1/chat/completions", json=body)
        pod.wait_for(lambda: waiting in pod.scrape() or asked.done(), "the request to be seen")
        assert not asked.done(), asked.result().text
        pod.kill()
        with pytest.raises(httpx.TransportError):
            asked.result()
