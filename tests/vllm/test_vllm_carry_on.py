"""Streams of a real ``vllm serve`` that break off, finished by another server of the target."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from server_process import ServerProcess

from engine.vllm.compat import installed_version

sys.path.append(str(Path(__file__).parents[1] / "routing"))

from connection_cutter import Cutter

ROOT = Path(__file__).parents[2]
START_S = 900.0
NAME = "plain"
ASKED: Any = [{"role": "user", "content": "Who are you and what can you do?"}]
FRONT = """
models:
- name: chat
  retries: {ratio: 1, burst: 100}
  targets: [{base_urls: ["@first@/v1", "@second@/v1"], kind: vllm, model: plain, name: pair,
             health: {path: ""}, breaker: {failures: 1000}}]
"""


class Plain:
    """``vllm serve``, with nothing of ours in the process but a way to start it as a module."""

    def __init__(self, folder: Path, model: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "vllm.txt"
        argv = [sys.executable, "-m", "benchmarks.frontend.vllm_serve", "serve", str(model)]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", NAME]
        argv += ["--dtype", "float32", "--max-model-len", "1024", "--enforce-eager"]
        # Of the machine's memory, most of which it would take beside the others of the suite.
        argv += ["--gpu-memory-utilization", "0.1"]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                argv, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdout=log, stderr=log
            )

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/health").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.2)

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def plain(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plain]:
    if installed_version() is None:
        pytest.skip("vLLM is not installed")
    server = Plain(tmp_path_factory.mktemp("plain"), model)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def answer(url: str, model: str, api: str, prompt: list[int]) -> tuple[str, Any, Any]:
    """Text, output tokens and finish reason of a greedy stream."""
    options: Any = {"stream": True, "temperature": 0, "stream_options": {"include_usage": True}}
    options |= {"model": model, "max_tokens": 40}
    text, usage, finish = "", None, None
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        if api == "chat":
            for chunk in client.chat.completions.create(messages=ASKED, **options):
                for choice in chunk.choices:
                    assert "token_ids" not in (choice.model_extra or {})
                    text += choice.delta.content or ""
                    finish = choice.finish_reason or finish
                usage = chunk.usage or usage
        else:
            for part in client.completions.create(prompt=prompt, **options):
                for one in part.choices:
                    text += one.text
                    finish = one.finish_reason or finish
                usage = part.usage or usage
    assert usage is not None
    return text, usage.completion_tokens, finish


def test_a_broken_stream_goes_on_as_if_nothing_had_been(plain: Plain, tmp_path: Path) -> None:
    """The text of the whole, wherever the first server breaks off, and its usage."""
    cutter = Cutter()
    text = FRONT.replace("@first@", cutter.url(plain.url)).replace("@second@", plain.url)
    (tmp_path / "gateway.yaml").write_text(text)
    front = ServerProcess(tmp_path, CONFIG_FILE="gateway.yaml")
    try:
        front.wait_ready()
        told = httpx.post(f"{plain.url}/tokenize", json={"model": NAME, "messages": ASKED})
        prompt = told.json()["tokens"]
        for api in ("chat", "completions"):
            cutter.after = None
            whole = answer(front.url, "chat", api, prompt)
            assert whole[0]
            cuts = range(100, cutter.last, cutter.last // 10)
            for cut in cuts:
                cutter.after = cut
                assert answer(front.url, "chat", api, prompt) == whole, cut
        carried = front.metric('gateway_carried_on_requests_total{model_name="chat"}')
        assert carried > len(cuts), "only the first cuts come before any output"
        assert front.metric("gateway_requests_in_flight") == 0
    finally:
        front.kill()
        cutter.close()
