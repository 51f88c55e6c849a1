"""A client that leaves frees its slot, in every phase, streaming or not, on every engine."""

import contextlib
import json
import socket
import time
from typing import Any

import pytest
from server_process import NewServer, ServerProcess

FREED_WITHIN_S = 1.0
# The bound holds on an idle machine; a shared one delays processes by more than that.
SLACK_S = 4.0

NEVER_S = 10_000

PHASES: dict[str, dict[str, Any]] = {
    "queued": {"queue_s": NEVER_S},
    "prefill": {"ttft_s": NEVER_S},
    "decode": {"itl_s": NEVER_S},
    "slow decode": {"itl_s": 0.05},
}


def send_request(
    server: ServerProcess, *, stream: bool, prompt: str = "hi", max_tokens: int = 4000
) -> socket.socket:
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": prompt}],
            "stream": stream,
            "max_tokens": max_tokens,
            "ignore_eos": True,
        }
    ).encode()
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    sock.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    )
    return sock


def load(server: ServerProcess) -> tuple[float, float]:
    """Requests in flight in the gateway, and in the engine."""
    samples = server.metrics()
    engine = samples["vllm:num_requests_running"] + samples["vllm:num_requests_waiting"]
    return samples["gateway_requests_in_flight"], engine


def busy(server: ServerProcess) -> bool:
    return load(server) == (1, 1)


def free(server: ServerProcess) -> bool:
    return load(server) == (0, 0)


def cancelled(server: ServerProcess) -> float:
    labels = 'outcome="cancelled",route="/v1/chat/completions"'
    return server.metric(f"gateway_requests_total{{{labels}}}")


def leave(sock: socket.socket, how: str) -> None:
    if how == "reset":
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    if how == "half-close":
        sock.shutdown(socket.SHUT_WR)
    else:
        sock.close()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("phase", "how"),
    [*((phase, "close") for phase in PHASES), ("prefill", "reset"), ("decode", "half-close")],
)
def test_leaving_frees_the_slot(
    shared_server: NewServer, phase: str, stream: bool, how: str
) -> None:
    server = shared_server(options=PHASES[phase])
    before = cancelled(server)
    sock = send_request(server, stream=stream)
    with contextlib.closing(sock):
        server.wait_for(lambda: busy(server), "the request to be worked on")
        if stream and "decode" in phase:
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
        leave(sock, how)
        server.wait_for(lambda: free(server), "the slot", FREED_WITHIN_S + SLACK_S)
    server.wait_for(lambda: cancelled(server) == before + 1, "the count", SLACK_S)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_leaving_the_onnx_engine_while_decoding(shared_server: NewServer, stream: bool) -> None:
    server = shared_server(ENGINE="onnx", MAX_NUM_SEQS="1")
    before = server.metrics()["vllm:generation_tokens_total"]
    with contextlib.closing(send_request(server, stream=stream, max_tokens=1900)):
        server.wait_for(lambda: server.metrics()["vllm:generation_tokens_total"] > before, "tokens")
    server.wait_for(lambda: free(server), "the slot", FREED_WITHIN_S + SLACK_S)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_leaving_the_onnx_engine_while_queued(shared_server: NewServer, stream: bool) -> None:
    server = shared_server(ENGINE="onnx", MAX_NUM_SEQS="1")
    with contextlib.closing(send_request(server, stream=True, max_tokens=1900)) as first:
        assert first.recv(1000).startswith(b"HTTP/1.1 200")
        second = send_request(server, stream=stream, max_tokens=1900)
        with contextlib.closing(second):
            server.wait_for(lambda: server.metrics()["vllm:num_requests_waiting"] == 1, "the queue")
        server.wait_for(lambda: server.metrics()["vllm:num_requests_waiting"] == 0, "the queue", 5)
        assert server.metric("gateway_requests_in_flight") == 1
    server.wait_for(lambda: free(server), "the slot", FREED_WITHIN_S + SLACK_S)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_leaving_the_onnx_engine_in_prefill(shared_server: NewServer, stream: bool) -> None:
    server = shared_server(ENGINE="onnx", MAX_NUM_SEQS="1")
    before = cancelled(server)
    # Of its own, so that the prefix cache does not shorten it, and long enough to be seen.
    prompt = f"{stream} " + "ab cd " * 250
    with contextlib.closing(send_request(server, stream=stream, prompt=prompt, max_tokens=400)):
        server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 1, "the start")
    server.wait_for(lambda: free(server), "the slot", FREED_WITHIN_S + SLACK_S)
    assert cancelled(server) == before + 1


def test_leaving_with_pipelined_requests_frees_the_slot(shared_server: NewServer) -> None:
    server = shared_server(options=PHASES["prefill"])
    sock = send_request(server, stream=False)
    server.wait_for(lambda: busy(server), "the request to be worked on")
    sock.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    time.sleep(0.1)
    sock.close()
    server.wait_for(lambda: free(server), "the slot", FREED_WITHIN_S + SLACK_S)


def test_leaving_while_sending_the_body(shared_server: NewServer) -> None:
    server = shared_server(options=PHASES["prefill"])
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    sock.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    )
    server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 1, "the start")
    sock.close()
    server.wait_for(lambda: free(server), "the slot", FREED_WITHIN_S + SLACK_S)


def test_many_leave_at_once(shared_server: NewServer) -> None:
    server = shared_server(options=PHASES["slow decode"])
    before = cancelled(server)
    socks = [send_request(server, stream=index % 2 == 0) for index in range(40)]
    server.wait_for(
        lambda: server.metric("gateway_requests_in_flight") == 40, "all to be worked on"
    )
    for sock in socks:
        sock.close()
    server.wait_for(lambda: free(server), "all slots", FREED_WITHIN_S + SLACK_S)
    server.wait_for(lambda: cancelled(server) == before + 40, "the count", SLACK_S)
    lines = [line for line in server.log_lines() if line.get("outcome") == "cancelled"]
    assert len(lines) >= 40
    assert "Traceback" not in server.logs()
