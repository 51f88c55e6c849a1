"""SIGTERM: no stream is lost in time, none hangs for ever, and nothing new is taken."""

import signal
import threading
import time
from typing import Any

import httpx
import openai
import pytest
from server_process import MESSAGES, NewServer, ServerProcess


class Reader(threading.Thread):
    """Reads a streamed answer in the background."""

    def __init__(self, server: ServerProcess, **fields: Any) -> None:
        super().__init__(daemon=True)
        self._client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
        self._fields = fields
        self.tokens = 0
        self.reason: str | None = None
        self.error: Exception | None = None
        self.started = threading.Event()

    def run(self) -> None:
        try:
            for chunk in self._client.chat.completions.create(
                model="bundled",
                messages=MESSAGES,
                stream=True,
                stream_options={"include_usage": True},
                **self._fields,
            ):
                self.started.set()
                if chunk.usage is not None:
                    self.tokens = chunk.usage.completion_tokens
                if chunk.choices and chunk.choices[0].finish_reason:
                    self.reason = chunk.choices[0].finish_reason
        except Exception as error:
            self.error = error
        finally:
            self.started.set()


def start_readers(server: ServerProcess, count: int, **fields: Any) -> list[Reader]:
    readers = [Reader(server, **fields) for _ in range(count)]
    for reader in readers:
        reader.start()
    for reader in readers:
        assert reader.started.wait(60)
    return readers


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_running_streams_finish(new_server: NewServer, number: signal.Signals) -> None:
    server = new_server(options={"itl_s": 0.02}).wait_ready()
    readers = start_readers(server, 8, max_tokens=100, extra_body={"ignore_eos": True})
    server.signal(number)
    server.wait_for(
        lambda: httpx.get(f"{server.url}/health/ready").status_code == 503, "readiness to flip"
    )
    assert httpx.get(f"{server.url}/health/live").status_code == 200
    refused = httpx.post(f"{server.url}/v1/chat/completions", json={"messages": MESSAGES})
    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "server_draining"
    assert int(refused.headers["retry-after"]) > 0
    assert refused.headers["connection"] == "close"
    for reader in readers:
        reader.join(60)
    assert [(r.error, r.tokens, r.reason) for r in readers] == [(None, 100, "length")] * 8
    assert server.wait_exit() == 0


def test_streams_beyond_the_timeout_end_with_an_error(new_server: NewServer) -> None:
    server = new_server(options={"itl_s": 0.02}, DRAIN_TIMEOUT_S="1").wait_ready()
    readers = start_readers(server, 4, max_tokens=8000, extra_body={"ignore_eos": True})
    began = time.monotonic()
    server.signal()
    for reader in readers:
        reader.join(60)
        assert isinstance(reader.error, openai.APIError)
        assert reader.error.code == "server_draining"
        assert not isinstance(reader.error, openai.APIConnectionError)
    assert server.wait_exit() == 0
    assert 1 <= time.monotonic() - began < 15


def test_whole_answers_beyond_the_timeout_get_503(new_server: NewServer) -> None:
    server = new_server(options={"itl_s": 10_000}, DRAIN_TIMEOUT_S="0.5").wait_ready()
    replies: list[httpx.Response] = []

    def ask() -> None:
        url = f"{server.url}/v1/chat/completions"
        replies.append(httpx.post(url, json={"messages": MESSAGES}, timeout=60))

    thread = threading.Thread(target=ask)
    thread.start()
    server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 1, "the request")
    server.signal()
    thread.join(60)
    assert replies[0].status_code == 503
    assert replies[0].json()["error"]["code"] == "server_draining"
    assert server.wait_exit() == 0


def test_a_second_signal_exits_at_once(new_server: NewServer) -> None:
    server = new_server(options={"itl_s": 10_000}, DRAIN_TIMEOUT_S="600").wait_ready()
    reader = Reader(server)
    reader.start()
    server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 1, "the request")
    server.signal()
    server.wait_for(
        lambda: httpx.get(f"{server.url}/health/ready").status_code == 503, "readiness to flip"
    )
    server.signal()
    assert server.wait_exit(10) != 0


def test_an_idle_server_exits_quickly(new_server: NewServer) -> None:
    server = new_server().wait_ready()
    with httpx.Client(base_url=server.url) as kept_open:
        assert kept_open.get("/health").status_code == 200
        began = time.monotonic()
        server.signal()
        assert server.wait_exit() == 0
    assert time.monotonic() - began < 15
