"""Starts ``llm-gateway serve`` as a user does, in a process of its own."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from engine.base import Capabilities, ModelInfo
from engine.fake.tokenizer import CHAT_TEMPLATE, EOS_ID, VOCAB_SIZE, byte_tokenizer

SENTENCE = "Grüße! The quick brown fox 🦊 jumps."
MESSAGES: Any = [{"role": "user", "content": "Hello there"}]
PATIENCE_S = 60.0
_URL = re.compile(r"http://127\.0\.0\.1:(\d+)")
LIBC = ctypes.CDLL(None)
SET_PDEATHSIG = 1  # prctl(2)


LIMIT = 200


def info_with(chat_template: str | None = CHAT_TEMPLATE, **capabilities: Any) -> ModelInfo:
    """A model that the byte tokenizer of the fake engine would have."""
    return ModelInfo(
        id="m",
        aliases=(),
        source="m",
        max_model_len=LIMIT,
        vocab_size=VOCAB_SIZE,
        tokenizer=byte_tokenizer(),
        chat_template=chat_template,
        template_globals={"bos_token": "<s>"},
        eos_token_ids=frozenset({EOS_ID}),
        created=0,
        engine="fake",
        quantization="none",
        device="cpu",
        dtype="none",
        capabilities=Capabilities(**capabilities),
    )


def end_with_the_tests() -> None:
    """Have Linux kill this process when the one that started it ends, however that ends: what
    stops a group of processes does not reach other groups."""
    LIBC.prctl(SET_PDEATHSIG, signal.SIGKILL)


class ServerProcess:
    """A running server on a free port. stdout and stderr go to files.

    Attributes:
        own_session: it has a process group of its own, which a test can signal as a whole.
    """

    own_session = False

    def __init__(self, folder: Path, *, options: dict[str, Any] | None = None, **settings: str):
        self.folder = folder
        self.out = folder / "stdout.txt"
        self.err = folder / "stderr.txt"
        self._http: httpx.Client | None = None
        self._environment = environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/tmp"),
            "PYTHONPATH": os.pathsep.join(sys.path),
            "ENGINE": "fake",
            "PORT": "0",
            "DATA_DIR": str(folder / "data"),
            **settings,
        }
        if options is not None:
            environment["ENGINE_OPTIONS"] = json.dumps(options)
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve"],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=self.own_session,
                preexec_fn=end_with_the_tests if self.own_session else None,
            )
        self.port = 0

    def wait_bound(self) -> ServerProcess:
        """Wait until the port is bound and announced."""

        def announced() -> bool:
            found = _URL.search(self.out.read_text())
            if found is not None:
                self.port = int(found[1])
            return self.port != 0

        self.wait_for(announced, "the port to be bound")
        return self

    def wait_ready(self) -> ServerProcess:
        """Wait until the model has loaded."""
        self.wait_bound()
        self.wait_for(lambda: "\nready " in self.out.read_text(), "the server to be ready")
        return self

    def wait_for(
        self, condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S
    ) -> float:
        """Poll until ``condition`` holds; returns the seconds it took."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > within_s:
                raise AssertionError(f"waited {within_s} s for {what}\n{self.logs()}")
            if self.process.poll() is not None and not condition():
                raise AssertionError(f"the server ended, waiting for {what}\n{self.logs()}")
            time.sleep(0.01)
        return time.monotonic() - began

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def logs(self) -> str:
        return f"{self.out.read_text()}\n{self.err.read_text()}"

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON log lines so far; one that is being written does not count yet."""
        lines = self.err.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.startswith("{") and line[-1] == "\n"]

    def metric(self, sample: str) -> float:
        """The value of one sample, such as ``gateway_requests_in_flight``; 0 when absent."""
        return self.metrics().get(sample, 0.0)

    def metrics(self) -> dict[str, float]:
        """All samples by name and labels; the engine's own without their labels."""
        if self._http is None:
            key = self._environment.get("API_KEYS", "none").split(",")[0]
            self._http = httpx.Client(headers={"x-api-key": key}, timeout=PATIENCE_S)
        samples: dict[str, float] = {}
        for line in self._http.get(f"{self.url}/metrics").text.splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith("vllm:") and "bucket" not in name and "reason" not in name:
                name = name.partition("{")[0]
            if not line.startswith("#"):
                samples[name] = float(value)
        return samples

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait_exit(self, within_s: float = PATIENCE_S) -> int:
        return self.process.wait(within_s)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self._http is not None:
            self._http.close()


NewServer = Callable[..., ServerProcess]
"""Starts one with these settings: what the fixtures give."""
