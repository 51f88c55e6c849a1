"""A gateway with a real vLLM in it, as a process of its own, and what the tests do to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from server_process import ServerProcess

from engine.vllm.process import group_members

# Half a minute on a quiet machine with two cores.
START_S = 900.0
SEATS = 16
NAME = "big"
PROMPTS = [
    "Hello! Who are you?",
    "What is the capital of France?",
    "What is 2 plus 3?",
    "Count from 1 to 5.",
    "Spell the word cat.",
    "Say hello in German.",
    "Name three colours.",
    "What day comes after Monday?",
    "Write the word stone backwards.",
    "Is the sky blue?",
    "Repeat after me: the quick brown fox.",
    "What is 7 minus 4?",
    "Give me a list of two fruits.",
    "My name is Ada. What is my name?",
    "Translate good morning into French.",
    "What is the opposite of hot?",
    "How many days has a week?",
    "Tell me something about rivers.",
    "Answer with yes or no: is ice cold?",
    "Thank you and goodbye.",
]
# What vLLM and CUDA read.
PASSED_ON = ("VLLM_", "OMP_", "CUDA_", "NVIDIA_", "LD_LIBRARY_PATH")
_SAMPLE = re.compile(r'vllm:(\w+)\{[^}]*model_name="big"[^}]*\} (\S+)')


class VllmServer(ServerProcess):
    """Serves one model on vLLM under the name ``big``."""

    own_session = True

    def __init__(self, folder: Path, model: Path, **settings: str) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        ours = {
            "TMPDIR": str(self.temporary),
            "ENGINE": "vllm",
            "MODEL_NAME": str(model),
            "SERVED_MODEL_NAME": NAME,
            "DTYPE": "float32",
            "ENFORCE_EAGER": "true",
            "MAX_MODEL_LEN": "2048",
            "MAX_NUM_SEQS": str(SEATS),
            # Long prompts take several steps, so that a test can be quicker than a prefill.
            "MAX_NUM_BATCHED_TOKENS": "128",
            "MODEL_CACHE_DIR": str(folder / "cache"),
            "DRAIN_TIMEOUT_S": "600",
            "HF_HUB_OFFLINE": "1",
        }
        shared = {name: v for name, v in os.environ.items() if name.startswith(PASSED_ON)}
        super().__init__(folder, **(shared | ours | settings))

    def wait_started(self) -> None:
        """Wait until every model has been tried once."""
        self.wait_bound()
        self.wait_for(lambda: "\nready " in self.out.read_text(), "vLLM to load", START_S)

    @property
    def sdk(self) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=START_S
        )

    def vllm(self, *names: str) -> list[float]:
        """Values of the model's metrics, without ``vllm:`` and ``_total``; 0 where absent."""
        self.metric("")  # opens the connection
        assert self._http is not None
        found = _SAMPLE.findall(self._http.get(f"{self.url}/metrics").text)
        values = {name.removesuffix("_total"): float(value) for name, value in found}
        return [values.get(name, 0.0) for name in names]

    @property
    def running(self) -> int:
        return int(self.vllm("num_requests_running")[0])

    @property
    def waiting(self) -> int:
        return int(self.vllm("num_requests_waiting")[0])

    def until(self, condition: Callable[[], bool], what: str) -> float:
        """Wait for it, for as long as a busy machine may need; returns the seconds."""
        return self.wait_for(condition, what, 120.0)

    def cores(self) -> list[int]:
        """Pids of the EngineCores that run: children of the server that lead a group."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = entry.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            state, parent, group = fields[0], int(fields[1]), int(fields[2])
            pid = int(entry.parent.name)
            if parent == self.process.pid and group == pid and state != "Z":
                found.append(pid)
        return sorted(found)

    def has_left(self, cores: list[int]) -> bool:
        """Whether anything is left of these EngineCores: processes, or what they wrote."""
        written = {path.name for path in self.temporary.glob("llm-gateway-vllm-*/core-*")}
        return any(
            group_members(core) or Path(f"/proc/{core}").exists() or f"core-{core}" in written
            for core in cores
        )


class Dropped:
    """A chat request on a socket of its own, which can be dropped at any moment."""

    def __init__(self, server: VllmServer, content: str, max_tokens: int, *, stream: bool):
        body = json.dumps(asked(content, max_tokens) | {"stream": stream}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._socket = socket.create_connection(("127.0.0.1", server.port))
        self._socket.sendall(head.encode() + body)
        self._socket.setblocking(False)
        self.received = b""

    def read(self) -> bytes:
        """Everything that has come so far."""
        try:
            while data := self._socket.recv(65536):
                self.received += data
        except BlockingIOError:
            pass
        return self.received

    def drop(self) -> None:
        self._socket.close()


def asked(content: str, max_tokens: int) -> dict[str, Any]:
    """A greedy request for exactly ``max_tokens`` tokens."""
    return {
        "model": NAME,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
    }


@dataclass
class Stream:
    """What a client got of one stream.

    Attributes:
        error: code of the error event that ended it, or None.
        ended: seconds by the monotonic clock at its end.
    """

    text: str = ""
    finish: str | None = None
    error: str | None = None
    ended: float = 0.0


class Streams:
    """Several streams at once, begun and read by one thread without an SDK, which could not keep
    up with an engine that makes a thousand tokens in a second."""

    def __init__(self, server: VllmServer, contents: list[str], max_tokens: int) -> None:
        self._server = server
        self._requests = [Dropped(server, text, max_tokens, stream=True) for text in contents]

    def wait_open(self) -> None:
        """Wait until each has some text and none has ended."""
        begun = [False] * len(self._requests)

        def all_begun() -> bool:
            for at, request in enumerate(self._requests):
                begun[at] = begun[at] or b'"content":"' in request.read()
            return all(begun)

        self._server.until(all_begun, "every stream to begin")
        assert not any(request.received.endswith(LAST_CHUNK) for request in self._requests)

    def wait(self) -> list[Stream]:
        """Read all of them to their ends."""
        ended: dict[int, float] = {}

        def all_ended() -> bool:
            for at, request in enumerate(self._requests):
                if at not in ended and request.read().endswith(LAST_CHUNK):
                    ended[at] = time.monotonic()
            return len(ended) == len(self._requests)

        self._server.wait_for(all_ended, "every stream to end", START_S)
        for request in self._requests:
            request.drop()
        return [parse(request.received, ended[at]) for at, request in enumerate(self._requests)]


LAST_CHUNK = b"\r\n0\r\n\r\n"


def parse(received: bytes, ended: float) -> Stream:
    """A stream as a complete response with chunked encoding carried it."""
    head, _, rest = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), received
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    stream = Stream(ended=ended)
    for line in body.decode().splitlines():
        if not line.startswith("data: {"):
            continue
        event = json.loads(line.removeprefix("data: "))
        if "error" in event:
            stream.error = event["error"]["code"]
        for choice in event.get("choices", ()):
            stream.text += choice["delta"].get("content") or ""
            stream.finish = choice["finish_reason"] or stream.finish
    return stream


def kill(pid: int) -> float:
    """SIGKILL; returns the moment by the monotonic clock."""
    os.kill(pid, signal.SIGKILL)
    return time.monotonic()
