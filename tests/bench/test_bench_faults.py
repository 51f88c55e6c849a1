"""Whatever a server does, every request is counted, by kind and with the server's words."""

import socket
import tempfile
from pathlib import Path

import pytest
from bench_calls import Silent, measured
from faulty_server import PROMPT_TOKENS, SLOW_S, TOGETHER, FaultyServer

from gateway.bench.errors import BenchError
from gateway.bench.lengths import read_lengths
from gateway.bench.options import BenchOptions, Server
from gateway.bench.session import run_bench

FEW = {"requests": 6, "concurrencies": (2,), "warmups": 0}
SHORT = read_lengths("3", "--output-len")
PROMPTS = '{"prompt": "hello", "output_tokens": 3}\n'


def test_every_token_is_counted(faulty: FaultyServer) -> None:
    found = measured(faulty.url, model="fine", output_len=SHORT, input_len=SHORT, **FEW)
    assert (found["completed"], found["failed"]) == (6, 0)
    assert found["total_output_tokens"] == 18
    assert found["total_input_tokens"] == 6 * PROMPT_TOKENS
    assert found["token_counts"] == "usage"
    assert all(len(itls) == 2 for itls in found["itls"])


def test_tokens_that_come_packed(faulty: FaultyServer) -> None:
    found = measured(faulty.url, model="packed", output_len=SHORT, input_len=SHORT, **FEW)
    assert found["output_lens"] == [12] * 6
    for ttft, itls, latency in zip(found["ttfts"], found["itls"], found["latencies"], strict=True):
        assert len(itls) == 8
        # The event that only ends may come after the last token.
        assert ttft + sum(itls) <= latency + 1e-9


def test_a_server_that_does_not_count(faulty: FaultyServer) -> None:
    found = measured(faulty.url, model="uncounted", output_len=SHORT, input_len=SHORT, **FEW)
    assert found["token_counts"] == "events"
    assert found["total_output_tokens"] == 18
    assert "A counts no tokens: events are counted instead" in found["notes"]


@pytest.mark.parametrize(
    ("model", "kind", "words"),
    [
        ("bad-request", "HTTP 400", "temperature is too high"),
        ("broken", "HTTP 500", "the engine fell over"),
        ("limited", "HTTP 429", "slow down"),
        ("cut-off", "stream cut off", "the connection ended in the response"),
        ("unfinished", "stream cut off", "the stream ended after 2 events"),
        ("hung-up", "connection lost", "before the response"),
        ("failing", "error in the stream", "out of memory"),
        ("garbled", "not a stream", "{not json"),
        ("not-streaming", "not a stream", "application/json"),
    ],
)
def test_failures_by_kind(faulty: FaultyServer, model: str, kind: str, words: str) -> None:
    name = f"later-{model}"
    lines = {"output_len": SHORT, "input_len": SHORT}
    # No probes of words: the second request already fails.
    found = measured_with_prompts(faulty, name, **FEW, **lines)
    assert (found["completed"], found["failed"]) == (0, 6)
    assert found["errors_by_kind"][kind]["count"] == 6
    assert words in found["errors_by_kind"][kind]["example"]
    assert all(error.startswith(f"{kind}: ") for error in found["errors"])
    assert found["mean_ttft_ms"] is None


def measured_with_prompts(faulty: FaultyServer, model: str, **options: object) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "prompts.jsonl"
        file.write_text(PROMPTS)
        return measured(faulty.url, model=model, prompts=file, **options)


def test_a_server_that_goes_silent(faulty: FaultyServer) -> None:
    found = measured_with_prompts(
        faulty, "later-stuck", requests=2, concurrencies=(2,), warmups=0, timeout_s=0.3
    )
    assert found["errors_by_kind"]["timeout"]["count"] == 2
    assert "not complete after 0.3 s" in found["errors"][0]


def test_a_refused_connection_is_said_before_the_load() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(BenchError, match=r"no server answers at .*refused"):
            measured(url)
        with pytest.raises(BenchError, match=r"no server answers at .*refused"):
            measured(url, model="fine")


def test_a_server_that_refuses_the_first_request(faulty: FaultyServer) -> None:
    with pytest.raises(BenchError, match="model 'broken': HTTP 500: the engine fell over"):
        measured(faulty.url, model="broken")


def test_fields_that_a_server_does_not_know_are_left_out(faulty: FaultyServer) -> None:
    found = measured(faulty.url, model="picky", output_len=SHORT, input_len=SHORT, **FEW)
    assert found["completed"] == 6
    last = faulty.bodies[-1]
    assert "ignore_eos" not in last
    assert "max_tokens" not in last
    assert last["max_completion_tokens"] == 3
    assert "A does not take ignore_eos, so it is left out" in found["notes"]


def test_open_loops_wait_for_no_answer(faulty: FaultyServer) -> None:
    """The server answers nobody before it has all requests."""
    found = measured_with_prompts(
        faulty, "later-together", rates=(500.0,), requests=TOGETHER, warmups=0, timeout_s=60.0
    )
    assert found["completed"] == found["max_concurrent_requests"] == TOGETHER
    assert found["generator"]["p99_send_lateness_ms"] is not None


def test_a_bound_on_an_open_loop_makes_callers_wait(faulty: FaultyServer) -> None:
    found = measured_with_prompts(
        faulty, "slow", rates=(200.0,), concurrencies=(2,), requests=6, warmups=0
    )
    assert found["max_concurrent_requests"] == 2
    assert found["max_concurrency"] == 2
    # The last waits for two others; it was due a moment after the first.
    assert max(found["queue_times"]) > SLOW_S
    assert found["mean_e2el_including_client_queue_ms"] > found["mean_e2el_ms"]


def test_time_ends_a_closed_loop(faulty: FaultyServer) -> None:
    found = measured_with_prompts(faulty, "slow", concurrencies=(3,), duration_s=0.4, warmups=0)
    assert found["completed"] in range(3, 7)


def test_what_is_sent(faulty: FaultyServer) -> None:
    server = Server("A", faulty.url, "k", "fine", (("x-team", "a"),))
    options = BenchOptions(
        (server,),
        requests=1,
        concurrencies=(1,),
        input_len=SHORT,
        output_len=SHORT,
        extra_body={"top_p": 0.5},
        temperature=0.0,
        warmups=0,
    )
    run_bench(options, Silent())
    sent = faulty.bodies[-1]
    assert sent.pop("messages")[0]["role"] == "user"
    assert sent == {
        "model": "fine",
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "max_tokens": 3,
        "top_p": 0.5,
        "temperature": 0.0,
    }
    assert faulty.headers[-1]["Authorization"] == "Bearer k"
    assert faulty.headers[-1]["x-team"] == "a"


@pytest.mark.parametrize("key", ["a\r\nb", "schlüssel"])
def test_keys_that_would_break_the_head(faulty: FaultyServer, key: str) -> None:
    with pytest.raises(BenchError, match="ASCII"):
        measured(faulty.url, key=key)
