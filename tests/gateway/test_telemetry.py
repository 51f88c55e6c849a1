"""Metrics and logs: each request counted once, cheap, and readable by Prometheus."""

import io
import json
import logging
import threading
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from server_process import MESSAGES, NewServer, ServerProcess

from engine.base import Delta
from gateway.http.edge import outcome_of
from gateway.telemetry.generation import GenerationMeter
from gateway.telemetry.histogram import Histogram
from gateway.telemetry.logging import REQUEST_ID, Logs
from gateway.telemetry.model_metrics import ModelMetrics

ROUTE = "/v1/chat/completions"


def requests_by_outcome(server: ServerProcess) -> dict[str, float]:
    found = {}
    for name, value in server.metrics().items():
        if name.startswith("gateway_requests_total") and ROUTE in name:
            found[name.split('outcome="')[1].split('"')[0]] = value
    return found


def post(server: ServerProcess, **body: object) -> httpx.Response:
    return httpx.post(f"{server.url}{ROUTE}", json=body, timeout=60)


def test_each_request_is_counted_once_by_outcome(new_server: NewServer) -> None:
    server = new_server(
        options={"output_tokens": 5, "die_after_tokens": 33}, RESTART_DELAY_S="3600"
    ).wait_ready()
    for stream in (False, True):
        for _ in range(2):
            assert post(server, messages=MESSAGES, stream=stream).status_code == 200
    for _ in range(3):
        assert post(server, messages=[]).status_code == 400
    assert httpx.get(f"{server.url}{ROUTE}").status_code == 405
    assert requests_by_outcome(server) == {"completed": 4, "rejected": 4}
    samples = server.metrics()
    assert samples["gateway_requests_in_flight"] == 0
    assert samples["vllm:generation_tokens_total"] == 24
    assert samples["vllm:e2e_request_latency_seconds_count"] == 4
    assert samples["vllm:time_to_first_token_seconds_count"] == 4
    assert (
        samples[
            'vllm:request_success_total{engine="0",finished_reason="stop",model_name="tiny-chat"}'
        ]
        == 4
    )
    # The engine dies in the middle of the next stream.
    broken = post(server, messages=MESSAGES, stream=True, ignore_eos=True)
    assert broken.status_code == 200
    assert json.loads(broken.text.split("data: ")[-1])["error"]["code"] == "engine_unavailable"
    assert "[DONE]" not in broken.text
    assert post(server, messages=MESSAGES).status_code == 503
    assert httpx.get(f"{server.url}/health/ready").json() == {"status": "engine_dead"}
    assert httpx.get(f"{server.url}/health/live").status_code == 200
    assert requests_by_outcome(server) == {
        "completed": 4,
        "rejected": 4,
        "shed": 1,
        "failed": 1,
    }
    lines = [line for line in server.log_lines() if line.get("route") == ROUTE]
    assert len(lines) == 10
    assert len({line["request_id"] for line in lines}) == 10
    done = [line for line in lines if line["outcome"] == "completed"]
    assert all(line["completion_tokens"] == 6 and line["ttft_ms"] > 0 for line in done)


def test_overload_is_a_503_with_retry_after(shared_server: NewServer) -> None:
    server = shared_server(options={"overloaded": True})
    for stream in (False, True):
        reply = post(server, messages=MESSAGES, stream=stream)
        assert reply.status_code == 503
        assert reply.json()["error"]["code"] == "server_is_overloaded"
        assert int(reply.headers["retry-after"]) >= 1


def test_a_silent_stream_is_pinged(new_server: NewServer) -> None:
    server = new_server(options={"ttft_s": 1.0, "text": "ok"}, SSE_PING_S="0.2").wait_ready()
    reply = post(server, messages=MESSAGES, stream=True)
    assert reply.text.startswith(": ping\n\n")
    assert '"content":"o' in reply.text
    assert reply.text.endswith("data: [DONE]\n\n")


def test_scrape_is_valid_and_has_the_names_that_scalers_read(server: ServerProcess) -> None:
    post(server, messages=MESSAGES)
    text = httpx.get(f"{server.url}/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name in (
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "vllm:cache_config_info",
    ):
        labels = families[name].samples[0].labels
        assert labels["model_name"] == "tiny-chat"
        assert labels["engine"] == "0"
    config = families["vllm:cache_config_info"].samples[0].labels
    assert int(config["block_size"]) * int(config["num_gpu_blocks"]) > 0
    for name in ("vllm:time_to_first_token_seconds", "vllm:inter_token_latency_seconds"):
        buckets = [s for s in families[name].samples if s.name.endswith("_bucket")]
        counts = [sample.value for sample in buckets]
        assert counts == sorted(counts)
        assert buckets[-1].labels["le"] == "+Inf"


def test_histogram_counts_like_prometheus() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        histogram.observe(value)
    histogram.observe(1.5, 10)
    assert histogram.cumulative() == [("1.0", 2), ("2.0", 14), ("+Inf", 15)]
    assert histogram.total == 29.0


def test_merged_deltas_count_as_many_gaps() -> None:
    metrics = ModelMetrics()
    meter = GenerationMeter(metrics, time.perf_counter(), prompt_tokens=3, choices=1)
    for _ in range(3):
        meter.see(Delta(0, [1, 2, 3, 4], "x", cached_tokens=2))
    meter.close(completed=False)
    assert metrics.gap.cumulative()[-1] == ("+Inf", 8)
    assert (metrics.generation_tokens, metrics.prompt_tokens, metrics.cached_tokens) == (12, 3, 2)
    assert metrics.end_to_end.cumulative()[-1] == ("+Inf", 0)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(200, "completed"), (404, "rejected"), (429, "shed"), (503, "shed"), (500, "failed")],
)
def test_outcomes(status: int, outcome: str) -> None:
    assert outcome_of(status) == outcome


class SlowSink(io.StringIO):
    """A terminal that blocks until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        self.go.wait(30)
        return super().write(text)


def logged(style: str, level: str = "info") -> str:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    sink = io.StringIO()
    logs = Logs(level, style, sink)
    token = REQUEST_ID.set("req_1")
    try:
        logging.getLogger("x").info("hello", extra={"fields": {"status": 200}})
        try:
            raise KeyError("a private prompt") from ValueError("another one")
        except KeyError as error:
            logging.getLogger("x").error("defect", exc_info=error)
    finally:
        REQUEST_ID.reset(token)
        logs.stop()
        root.handlers[:], root.level = before
    return sink.getvalue()


def test_json_lines_carry_the_request_id_and_no_exception_text() -> None:
    first, second = (json.loads(line) for line in logged("json").splitlines())
    assert (first["message"], first["status"], first["request_id"]) == ("hello", 200, "req_1")
    assert "KeyError" in second["exception"]
    assert "ValueError" in second["exception"]
    assert "private" not in second["exception"]
    assert "private" in logged("json", "debug")


def test_text_lines_are_for_people() -> None:
    assert "hello status=200 request_id=req_1" in logged("text")


def test_a_slow_sink_never_blocks() -> None:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    sink = SlowSink()
    logs = Logs("info", "json", sink)
    began = time.monotonic()
    try:
        for _ in range(10_100):
            logging.getLogger("x").info("line")
        assert time.monotonic() - began < 20
        assert logs.dropped() > 0
    finally:
        sink.go.set()
        logs.stop()
        root.handlers[:], root.level = before
