"""``llm-gateway serve`` with a real vLLM: through the SDK, under load, killed and drained.

The tests share one server and leave it idle. The last one ends it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer
from vllm_server import NAME, PROMPTS, SEATS, START_S, Dropped, Streams, VllmServer, asked, kill

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("needs_vllm")]

ABORT_S = 1.0
DEATH_S = 10.0
GONE_S = 60.0
LONG = 1900
Start = Callable[..., VllmServer]


@pytest.fixture(scope="module")
def start(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts servers that are killed at the end."""
    running: list[VllmServer] = []

    def begin(**settings: str) -> VllmServer:
        server = VllmServer(tmp_path_factory.mktemp("vllm-server"), model, **settings)
        running.append(server)
        server.wait_started()
        return server

    yield begin
    for server in running:
        server.kill()


@pytest.fixture(scope="module")
def shared(start: Start, model: Path) -> Callable[[], VllmServer]:
    found: list[VllmServer] = []

    def get() -> VllmServer:
        if not found or found[-1].process.poll() is not None:
            reference = {
                "model_name": str(model),
                "served_model_name": "reference",
                "engine": "onnx",
                "onnx_precision": "fp32",
            }
            found.append(start(MODELS=json.dumps([reference]), FALLBACK_MODEL="bundled"))
        return found[-1]

    return get


@pytest.fixture
def server(shared: Callable[[], VllmServer]) -> VllmServer:
    """One vLLM named ``big``, the same weights on ONNX in fp32 named ``reference``, and the
    bundled model as the fallback."""
    return shared()


def complete(server: VllmServer, content: str, max_tokens: int, **options: Any) -> Any:
    body = asked(content, max_tokens) | {"ignore_eos": False} | options
    extra = {"ignore_eos": body.pop("ignore_eos")}
    return server.sdk.chat.completions.create(**body, extra_body=extra)


def test_chat_in_one_piece_and_as_a_stream(server: VllmServer) -> None:
    answer = complete(server, PROMPTS[0], 40)
    choice = answer.choices[0]
    assert answer.model == NAME
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens > 0
    assert 0 < answer.usage.completion_tokens <= 40
    chunks = list(
        complete(server, PROMPTS[0], 40, stream=True, stream_options={"include_usage": True})
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == choice.message.content
    assert len([piece for piece in pieces if piece]) > 1
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    version = httpx.get(f"{server.url}/version").json()
    assert version["model"]["engine"] == "vllm"
    assert version["model"]["dtype"] == "float32"


def test_greedy_tokens_are_those_of_the_onnx_engine(server: VllmServer) -> None:
    def tokens(name: str, content: str) -> list[tuple[str, float]]:
        answer = complete(server, content, 48, model=name, logprobs=True)
        found = answer.choices[0].logprobs.content
        assert len(found) >= 1
        return [(entry.token, entry.logprob) for entry in found]

    assert len(set(PROMPTS)) == 20
    with ThreadPoolExecutor(4) as pool:
        ours = list(pool.map(lambda content: tokens(NAME, content), PROMPTS))
        theirs = list(pool.map(lambda content: tokens("reference", content), PROMPTS))
    for content, one, other in zip(PROMPTS, ours, theirs, strict=True):
        assert [token for token, _ in one] == [token for token, _ in other], content
        assert [p for _, p in one] == pytest.approx([p for _, p in other], abs=5e-3), content


# Long enough that the last one begins before the first one ends, whoever else has the cores.
OUTPUT = 512


def test_sixteen_requests_run_as_one_batch(server: VllmServer) -> None:
    def one(number: int) -> float:
        began = time.monotonic()
        answer = complete(server, f"{number}: {PROMPTS[number]}", OUTPUT, ignore_eos=True)
        assert answer.usage.completion_tokens == OUTPUT
        return time.monotonic() - began

    ratios = []
    most = 0
    # Another program on this machine may take the cores away from either side.
    for _ in range(3):
        single = statistics.median(one(number) for number in range(3))
        with ThreadPoolExecutor(SEATS) as pool:
            began = time.monotonic()
            futures = [pool.submit(one, number) for number in range(SEATS)]
            while not all(future.done() for future in futures):
                most = max(most, server.running)
                time.sleep(0.05)
            together = time.monotonic() - began
        assert [future.exception() for future in futures] == [None] * SEATS
        ratios.append(together / (SEATS * single))
        if most == SEATS and ratios[-1] < 0.5:
            break
    assert most == SEATS
    assert min(ratios) < 0.5


def test_a_shared_prefix_is_taken_from_the_cache(server: VllmServer, model: Path) -> None:
    shared = text_of(model, 500, seed=1)
    first = complete(server, f"{shared} one", 4)
    again = complete(server, f"{shared} two", 4)
    assert first.usage.prompt_tokens > 400
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    # vLLM's blocks on a CPU hold 128 tokens.
    assert again.usage.prompt_tokens_details.cached_tokens >= 128
    assert server.vllm("prefix_cache_hits")[0] >= 128


def text_of(model: Path, tokens: int, seed: int) -> str:
    """Words that make about so many tokens, different from the first on for every seed."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    draw = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = " ".join("".join(draw.choices(letters, k=4)) for _ in range(tokens))
    return str(tokenizer.decode(tokenizer.encode(words).ids[:tokens]))


def idle(server: VllmServer) -> bool:
    return server.vllm("num_requests_running", "num_requests_waiting") == [0, 0]


def seconds_to_idle(server: VllmServer, dropped: list[Dropped]) -> float:
    for request in dropped:
        request.drop()
    return server.until(lambda: idle(server), "the engine to be idle")


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
def test_abort_in_decode(server: VllmServer, stream: bool) -> None:
    took = []
    for attempt in range(3):
        before = server.vllm("generation_tokens")[0]
        request = Dropped(server, f"{attempt} {PROMPTS[1]}", LONG, stream=stream)
        server.until(lambda base=before: server.vllm("generation_tokens")[0] > base + 2, "tokens")
        assert server.running == 1
        assert (b'"content"' in request.read()) is stream
        took.append(seconds_to_idle(server, [request]))
        if took[-1] < ABORT_S:
            break
    assert min(took) < ABORT_S


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
def test_abort_in_prefill(server: VllmServer, model: Path, stream: bool) -> None:
    took = []
    for attempt in range(10):
        before = server.vllm("generation_tokens")[0]
        content = text_of(model, LONG, seed=100 + attempt + 10 * stream)
        request = Dropped(server, content, 64, stream=stream)
        server.until(lambda: server.running == 1, "the prefill to begin")
        seconds = seconds_to_idle(server, [request])
        # Where a token came first the attempt was too late to say anything.
        if server.vllm("generation_tokens")[0] == before:
            took.append(seconds)
        if took and (took[-1] < ABORT_S or len(took) == 3):
            break
    assert took
    assert min(took) < ABORT_S


@pytest.mark.parametrize("stream", [True, False], ids=["streaming", "whole"])
def test_abort_in_the_queue(server: VllmServer, stream: bool) -> None:
    queue, everything = [], []
    for _ in range(3):
        full = [Dropped(server, f"{i} {PROMPTS[i]}", LONG, stream=stream) for i in range(SEATS)]
        server.until(lambda: server.running == SEATS, "every seat to be taken")
        waiting = Dropped(server, PROMPTS[0], 8, stream=stream)
        server.until(lambda: server.waiting == 1, "a request to wait")
        waiting.drop()
        queue.append(server.until(lambda: server.waiting == 0, "it to be gone"))
        assert server.running == SEATS
        everything.append(seconds_to_idle(server, full))
        if queue[-1] < ABORT_S and everything[-1] < ABORT_S:
            break
    assert min(queue) < ABORT_S
    assert min(everything) < ABORT_S


def test_streams_of_killed_engines_go_on_with_another_one_and_after_a_restart(
    start: Start,
) -> None:
    pair = start(REPLICAS="2", CARRY_ON_WAIT_S=str(START_S))
    contents, tokens = PROMPTS[:8], 1000
    undisturbed = Streams(pair, contents, tokens).wait()
    assert {stream.finish for stream in undisturbed} == {"length"}
    carried_on = 'gateway_carried_on_requests_total{model_name="big"}'
    first, second = pair.cores()
    # The second time the first one is being started again, so that only a restarted engine, and
    # no other, can go on.
    for core in (first, second):
        before = pair.metric(carried_on)
        streams = Streams(pair, contents, tokens)
        streams.wait_open()
        kill(core)
        after = streams.wait()
        assert [stream.error for stream in after] == [None] * 8
        assert [stream.finish for stream in after] == ["length"] * 8
        assert [stream.text for stream in after] == [stream.text for stream in undisturbed]
        assert pair.metric(carried_on) > before
        assert httpx.get(f"{pair.url}/health/ready").json() == {"status": "ready"}

    # A gateway that is killed in the midst of its work takes its engines with it.
    working = [Dropped(pair, content, LONG, stream=True) for content in contents]
    pair.until(lambda: all(b'"content"' in one.read() for one in working), "the work to begin")
    cores = pair.cores()
    assert cores
    assert pair.has_left(cores)
    kill(pair.process.pid)
    pair.wait_exit()
    deadline = time.monotonic() + GONE_S
    while pair.has_left(cores):
        assert time.monotonic() < deadline, "processes or files of a killed gateway are left"
        time.sleep(0.05)
    for one in working:
        one.drop()


def test_without_another_engine_the_fallback_answers_until_it_is_back(server: VllmServer) -> None:
    streams = Streams(server, PROMPTS[:8], LONG)
    streams.wait_open()
    (core,) = server.cores()
    killed = kill(core)
    for stream in streams.wait():
        assert stream.finish is None
        assert stream.error == "engine_unavailable"
        assert stream.ended - killed < DEATH_S
    route = f"{server.url}/v1/chat/completions"
    body = {"model": NAME, "messages": asked("Hello", 4)["messages"], "max_tokens": 4}
    reply = httpx.post(route, json=body, timeout=120)
    assert reply.status_code == 200
    assert reply.headers["x-gateway-degraded"] == NAME
    assert reply.json()["usage"]["degraded"] is True
    ready = httpx.get(f"{server.url}/health/ready", timeout=60)
    assert ready.status_code == 200
    assert ready.json() == {"status": "degraded", "down": [NAME]}
    up = f'gateway_engine_up{{engine="0",model_name="{NAME}"}}'
    assert server.metric(up) == 0

    server.wait_for(lambda: server.metric(up) == 1, "the engine to come back", 900)
    reply = httpx.post(route, json=body, timeout=120)
    assert reply.status_code == 200
    assert "x-gateway-degraded" not in reply.headers
    assert reply.json()["model"] == NAME
    assert server.metric(f'gateway_engine_restarts_total{{engine="0",model_name="{NAME}"}}') == 1
    assert httpx.get(f"{server.url}/health/ready", timeout=60).json() == {"status": "ready"}


def test_sigterm_to_the_whole_group_lets_every_stream_finish(server: VllmServer) -> None:
    streams = Streams(server, PROMPTS[:8], 1000)
    streams.wait_open()
    cores = server.cores()
    os.killpg(server.process.pid, signal.SIGTERM)
    for stream in streams.wait():
        assert stream.error is None
        assert stream.finish == "length"
    assert server.wait_exit(START_S) == 0
    assert cores
    assert not server.has_left(cores)
