"""What no well-behaved client sends, over plain sockets. The server answers or hangs up in time."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import pytest
from server_process import NewServer, ServerProcess

BODY = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}).encode()
POST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)
TIGHT = {"HEAD_TIMEOUT_S": "1", "BODY_TIMEOUT_S": "1", "MAX_HEADER_BYTES": "4096"}


@pytest.fixture
def tight(shared_server: NewServer) -> ServerProcess:
    """A server with small bounds."""
    return shared_server(options={"text": "ok"}, MAX_BODY_BYTES="200000", **TIGHT)


@contextlib.contextmanager
def connection(server: ServerProcess) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        yield sock


def read_all(sock: socket.socket) -> bytes:
    """Everything until the server closes."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65536):
            parts.append(part)
    return b"".join(parts)


def read_answers(sock: socket.socket, count: int) -> list[tuple[int, bytes]]:
    """``count`` responses with Content-Length, as (status, body)."""
    data = b""
    answers: list[tuple[int, bytes]] = []
    while len(answers) < count:
        head, mark, rest = data.partition(b"\r\n\r\n")
        if mark:
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            if len(rest) >= length:
                answers.append((int(head.split()[1]), rest[:length]))
                data = rest[length:]
                continue
        part = sock.recv(65536)
        assert part, f"closed after {answers} {data!r}"
        data += part
    return answers


def with_length(body: bytes = BODY) -> bytes:
    return POST + b"Content-Length: %d\r\n\r\n" % len(body) + body


def error_code(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def test_chunked_body_in_small_pieces(tight: ServerProcess) -> None:
    with connection(tight) as sock:
        sock.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(BODY), 7):
            piece = BODY[start : start + 7]
            sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        sock.sendall(b"0\r\n\r\n")
        [(status, body)] = read_answers(sock, 1)
        assert status == 200
        assert json.loads(body)["choices"][0]["message"]["content"] == "ok"


def test_pipelined_requests_are_answered_in_order(tight: ServerProcess) -> None:
    with connection(tight) as sock:
        bad = b'{"messages":[]}'
        sock.sendall(with_length() + with_length(bad) + with_length())
        assert [status for status, _ in read_answers(sock, 3)] == [200, 400, 200]


def test_keep_alive_and_line_breaks_between_requests(tight: ServerProcess) -> None:
    with connection(tight) as sock:
        for _ in range(3):
            sock.sendall(b"\r\n" + with_length())
            assert read_answers(sock, 1)[0][0] == 200


def test_declared_length_beyond_the_bound(tight: ServerProcess) -> None:
    with connection(tight) as sock:
        sock.sendall(POST + b"Content-Length: 200001\r\nExpect: 100-continue\r\n\r\n")
        assert error_code(read_all(sock)) == (413, "request_too_large")


def test_undeclared_length_beyond_the_bound(tight: ServerProcess) -> None:
    with connection(tight) as sock:
        sock.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        piece = b"2710\r\n" + b" " * 10_000 + b"\r\n"
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                sock.sendall(piece)
        assert error_code(read_all(sock)) == (413, "request_too_large")


@pytest.mark.parametrize("start", [b"", b'{"messages":'])
def test_a_body_that_never_ends_is_given_up(tight: ServerProcess, start: bytes) -> None:
    with connection(tight) as sock:
        began = time.monotonic()
        sock.sendall(POST + b"Content-Length: 1000\r\n\r\n" + start)
        assert error_code(read_all(sock)) == (408, "request_timeout")
        assert time.monotonic() - began < 20


def test_a_dripping_head_is_given_up(tight: ServerProcess) -> None:
    with connection(tight) as sock:
        with contextlib.suppress(ConnectionError):
            for byte in POST[:200]:
                sock.sendall(bytes([byte]))
                time.sleep(0.03)
        assert error_code(read_all(sock)) == (408, "request_timeout")


def test_a_silent_connection_is_closed(tight: ServerProcess) -> None:
    with connection(tight) as sock:
        assert read_all(sock) == b""


def test_a_large_head_is_refused(tight: ServerProcess) -> None:
    for filler in (b"X-Filler: " + b"x" * 10_000, b"X: y\r\n" * 1000):
        with connection(tight) as sock:
            sock.sendall(POST + filler + b"\r\n\r\n")
            assert error_code(read_all(sock)) == (431, "request_header_fields_too_large")
    with connection(tight) as sock:
        sock.sendall(b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n")
        assert error_code(read_all(sock))[0] == 431


def test_an_endless_head_is_cut_off(tight: ServerProcess) -> None:
    with connection(tight) as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(POST)
            for _ in range(2000):
                sock.sendall(b"X-Filler: " + b"x" * 1000 + b"\r\n")
        answer = read_all(sock)
        assert not answer or error_code(answer)[0] == 431


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: -5\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_malformed_requests(tight: ServerProcess, request_bytes: bytes) -> None:
    with connection(tight) as sock:
        sock.sendall(request_bytes)
        status, code = error_code(read_all(sock))
        assert (status, code) in {(400, "invalid_http"), (408, "request_timeout")}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost:80", 200),
        (b"127.0.0.1", 200),
        (b"[::1]:8000", 200),
        (b"demo.localhost", 200),
        (b"evil.example", 403),
        (b"127.0.0.1.evil.example", 403),
        (b"localhost/?#", 403),
        (b"localhost@evil", 403),
        (b"", 403),
    ],
)
def test_foreign_hosts_are_refused_without_keys(
    tight: ServerProcess, host: bytes, status: int
) -> None:
    with connection(tight) as sock:
        sock.sendall(b"GET /v1/models HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert read_answers(sock, 1)[0][0] == status


def test_http_1_0_and_upgrades_are_answered(tight: ServerProcess) -> None:
    with connection(tight) as sock:
        sock.sendall(b"GET /health/live HTTP/1.0\r\n\r\n")
        assert read_all(sock).startswith(b"HTTP/1.1 200")
    with connection(tight) as sock:
        sock.sendall(
            b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert read_answers(sock, 1)[0][0] == 200


def test_a_reader_that_stalls_is_cut_off(new_server: NewServer) -> None:
    server = new_server(WRITE_TIMEOUT_S="1").wait_ready()
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
            "ignore_eos": True,
            "logprobs": True,
            "top_logprobs": 20,
        }
    ).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(with_length(body))
        server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 1, "the start", 20)
        server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 0, "the cut", 20)
    assert "Traceback" not in server.logs()


def test_the_server_survived(tight: ServerProcess) -> None:
    with connection(tight) as sock:
        sock.sendall(with_length())
        assert read_answers(sock, 1)[0][0] == 200
    assert "Traceback" not in tight.logs()
    assert not [line for line in tight.log_lines() if line["level"] == "error"]
    assert tight.metric("gateway_requests_in_flight") == 0
