"""What goes wrong, in Anthropic's shape: what its SDK makes of it, and what is left behind."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx
import pytest
from server_process import MESSAGES, SENTENCE, NewServer, ServerProcess

ASKED: Any = {"model": "tiny-chat", "max_tokens": 200, "messages": MESSAGES}
BODY: dict[str, Any] = dict(ASKED)
NEVER_S = 10_000
KEY = "sk-right-" + "0" * 32


Sdk = Callable[..., anthropic.Anthropic]


@pytest.fixture
def sdk() -> Iterator[Sdk]:
    """Makes clients of a server; they are closed in the end."""
    with contextlib.ExitStack() as stack:

        def new(server: ServerProcess, **options: Any) -> anthropic.Anthropic:
            options = {"api_key": "x", "max_retries": 0, **options}
            return stack.enter_context(anthropic.Anthropic(base_url=server.url, **options))

        yield new


def failure(reply: httpx.Response) -> tuple[str, str]:
    """Type and message of an error, checked for its shape."""
    body = reply.json()
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message"}
    assert body["request_id"] == reply.headers["request-id"] == reply.headers["x-request-id"]
    return body["error"]["type"], body["error"]["message"]


@pytest.fixture
def locked(shared_server: NewServer) -> ServerProcess:
    return shared_server(options={"text": SENTENCE}, API_KEYS=KEY)


def test_keys(sdk: Sdk, locked: ServerProcess) -> None:
    with pytest.raises(anthropic.AuthenticationError) as caught:
        sdk(locked, api_key="wrong").messages.create(**ASKED)
    assert caught.value.type == "authentication_error"
    assert caught.value.request_id
    assert sdk(locked, api_key=KEY).messages.create(**ASKED).content
    token = sdk(locked, api_key=None, auth_token=KEY)
    assert token.messages.create(**ASKED).content
    assert failure(httpx.post(f"{locked.url}/v1/messages", json=BODY))[0] == "authentication_error"


@pytest.mark.parametrize(
    ("path", "method", "status", "kind"),
    [
        ("/v1/messages", "GET", 405, "invalid_request_error"),
        ("/v1/messages", "DELETE", 405, "invalid_request_error"),
        ("/v1/messages/count_tokens", "GET", 405, "invalid_request_error"),
        ("/v1/messages/batches", "POST", 404, "not_found_error"),
        ("/v1/messages/nonsense", "GET", 404, "not_found_error"),
    ],
)
def test_wrong_urls(server: ServerProcess, path: str, method: str, status: int, kind: str) -> None:
    reply = httpx.request(method, server.url + path, json=BODY if method == "POST" else None)
    assert reply.status_code == status
    assert failure(reply)[0] == kind


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
@pytest.mark.parametrize(
    ("content", "media_type", "status", "kind"),
    [
        (b"{", "application/json", 400, "invalid_request_error"),
        (b"[]", "application/json", 400, "invalid_request_error"),
        (b"", "application/json", 400, "invalid_request_error"),
        (b'{"model":"m","model":"m"}', "application/json", 400, "invalid_request_error"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "application/json", 400, "invalid_request_error"),
        (b'{"model": "\xff"}', "application/json", 400, "invalid_request_error"),
        (b"{}", "text/plain", 415, "invalid_request_error"),
        (b" " * 3000, "application/json", 413, "request_too_large"),
    ],
)
def test_bad_bodies(
    shared_server: NewServer, path: str, content: bytes, media_type: str, status: int, kind: str
) -> None:
    server = shared_server(options={"text": SENTENCE}, MAX_BODY_BYTES="2048")
    reply = httpx.post(server.url + path, content=content, headers={"content-type": media_type})
    assert reply.status_code == status
    assert failure(reply)[0] == kind


@pytest.mark.parametrize(
    "messages",
    [
        "hello",
        {},
        [None],
        [[]],
        [{"role": "wizard", "content": "x"}],
        [{"role": "user", "content": {"type": "text"}}],
        [{"role": "user", "content": [{"type": "text", "text": 5}]}],
        [{"role": "user", "content": [{"type": ["text"], "text": "x"}]}],
        [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "😀"}]}],
        [{"role": "user", "content": [{"type": "text", "text": "x"}] * 300}],
        [{"role": "assistant", "content": [{"type": "tool_use", "id": 1, "name": "a"}]}],
        [{"role": "user", "content": "x"}] * 3000,
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_bad_messages(server: ServerProcess, messages: Any, stream: bool) -> None:
    body = {**BODY, "messages": messages, "stream": stream}
    reply = httpx.post(f"{server.url}/v1/messages", json=body)
    assert reply.status_code == 400
    kind, text = failure(reply)
    assert kind == "invalid_request_error"
    assert "messages" in text
    assert reply.headers["x-should-retry"] == "false"


def test_an_unknown_model(sdk: Sdk, server: ServerProcess) -> None:
    with pytest.raises(anthropic.NotFoundError) as caught:
        sdk(server).messages.create(**{**ASKED, "model": "claude-unknown"})
    assert caught.value.type == "not_found_error"


def test_unknown_fields(sdk: Sdk, shared_server: NewServer, server: ServerProcess) -> None:
    odd = {"extra_body": {"nonsense": 1}}
    assert sdk(server).messages.create(**ASKED, **odd).content
    strict = shared_server(options={"text": SENTENCE}, STRICT_PARAMETERS="true")
    with pytest.raises(anthropic.BadRequestError, match="nonsense"):
        sdk(strict).messages.create(**ASKED, **odd)


def test_overload_is_what_the_sdk_retries(sdk: Sdk, shared_server: NewServer) -> None:
    server = shared_server(options={"overloaded": True})
    with pytest.raises(anthropic.OverloadedError) as caught:
        sdk(server).messages.create(**ASKED)
    assert caught.value.status_code == 529
    assert caught.value.type == "overloaded_error"
    assert caught.value.response.headers["retry-after"] == "1"
    before = server.metric('gateway_requests_total{outcome="shed",route="/v1/messages"}')
    with pytest.raises(anthropic.OverloadedError):
        sdk(server, max_retries=1).messages.create(**ASKED)
    after = server.metric('gateway_requests_total{outcome="shed",route="/v1/messages"}')
    assert after - before == 2, server.metrics()


def test_a_stream_that_breaks_ends_in_an_error_event(sdk: Sdk, new_server: NewServer) -> None:
    server = new_server(options={"die_after_tokens": 5, "itl_s": 0.01}).wait_ready()
    with sdk(server).messages.stream(**ASKED) as stream:
        pieces = iter(stream.text_stream)
        assert next(pieces)
        with pytest.raises(anthropic.APIStatusError) as caught:
            list(pieces)
    assert caught.value.type == "overloaded_error"
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert body["request_id"] == caught.value.request_id


def test_a_silent_stream_is_pinged(sdk: Sdk, shared_server: NewServer) -> None:
    server = shared_server(options={"text": "Hi", "ttft_s": 0.5}, SSE_PING_S="0.1")
    body = {**BODY, "stream": True}
    text = httpx.post(f"{server.url}/v1/messages", json=body, timeout=60).text
    assert text.startswith('event: ping\ndata: {"type": "ping"}\n\n')
    with sdk(server).messages.stream(**ASKED) as stream:
        assert stream.get_final_text() == "Hi"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("phase", [{"queue_s": NEVER_S}, {"ttft_s": NEVER_S}, {"itl_s": 0.05}])
def test_a_client_that_leaves_frees_its_slot(
    shared_server: NewServer, phase: dict[str, Any], stream: bool
) -> None:
    server = shared_server(options=phase)
    body = json.dumps({**BODY, "stream": stream}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(
            b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body
        )
        server.wait_for(lambda: load(server) == (1, 1), "the request to run")
    began = time.monotonic()
    server.wait_for(lambda: load(server) == (0, 0), "the slot to be free")
    assert time.monotonic() - began < 10


def load(server: ServerProcess) -> tuple[float, float]:
    """Requests in flight in the gateway, and in the engine."""
    samples = server.metrics()
    engine = samples["vllm:num_requests_running"] + samples["vllm:num_requests_waiting"]
    return samples["gateway_requests_in_flight"], engine


def test_a_closed_sdk_stream_frees_its_slot(sdk: Sdk, shared_server: NewServer) -> None:
    server = shared_server(options={"itl_s": 0.05})
    with sdk(server).messages.stream(**ASKED) as stream:
        assert next(iter(stream.text_stream))
    server.wait_for(lambda: load(server) == (0, 0), "the slot to be free")


def test_no_prompt_reaches_the_log(sdk: Sdk, new_server: NewServer) -> None:
    server = new_server(options={"text": SENTENCE}).wait_ready()
    secret = "very-private-words"
    asked: Any = {**ASKED, "messages": [{"role": "user", "content": secret}], "system": secret}
    assert sdk(server).messages.create(**asked).content

    def lines() -> list[dict[str, Any]]:
        return [entry for entry in server.log_lines() if entry.get("route") == "/v1/messages"]

    server.wait_for(lambda: bool(lines()), "the line in the log")
    (line,) = lines()
    assert (line["status"], line["outcome"], line["model"]) == (200, "completed", "tiny-chat")
    assert secret not in server.logs()
