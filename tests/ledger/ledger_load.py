"""Clients that count for themselves what they were answered."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import openai

# Enough to have work in every phase, and not so much that the machine has time for nothing else.
PAUSE_S = 0.01
MESSAGES: Any = [{"role": "user", "content": "tell me"}]


@dataclass(frozen=True)
class Answered:
    """One request that was answered to its end."""

    request_id: str
    at: float
    status: int
    prompt_tokens: int
    completion_tokens: int


class Load:
    """Threads that ask one server, each until it is told to stop or nobody answers any more."""

    def __init__(self, url: str, key: str, name: str, threads: int = 4) -> None:
        self.answered: list[Answered] = []
        self.unanswered = 0
        self._url = url
        self._key = key
        self._name = name
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, count: int, within_s: float = 60.0) -> None:
        """Until so many requests have been answered."""
        deadline = time.monotonic() + within_s
        while len(self.answered) < count:
            assert time.monotonic() < deadline, f"{len(self.answered)} of {count} were answered"
            time.sleep(0.01)

    def stop(self) -> None:
        """Let running requests end."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _run(self) -> None:
        with openai.OpenAI(base_url=f"{self._url}/v1", api_key=self._key, max_retries=0) as client:
            asks: list[Callable[[openai.OpenAI, str], Answered]] = [whole, streamed]
            while not self._stop.is_set():
                number = next(self._numbers)
                name = f"{self._name}-{number}"
                try:
                    self.answered.append(asks[number % 2](client, name))
                    time.sleep(PAUSE_S)
                except openai.APIStatusError as error:
                    self.answered.append(Answered(name, time.time(), error.status_code, 0, 0))
                    if error.status_code == 503:
                        time.sleep(0.02)
                except (openai.APIConnectionError, httpx.HTTPError):
                    self.unanswered += 1
                    return


def whole(client: openai.OpenAI, name: str) -> Answered:
    """A completion in one piece."""
    answer = client.chat.completions.create(
        model="bundled", messages=MESSAGES, max_tokens=4, extra_headers={"x-request-id": name}
    )
    usage = answer.usage
    assert usage is not None
    return Answered(name, time.time(), 200, usage.prompt_tokens, usage.completion_tokens)


def streamed(client: openai.OpenAI, name: str) -> Answered:
    """A completion as a stream."""
    usage = None
    for chunk in client.chat.completions.create(
        model="bundled",
        messages=MESSAGES,
        max_tokens=6,
        stream=True,
        stream_options={"include_usage": True},
        extra_headers={"x-request-id": name},
    ):
        usage = chunk.usage or usage
    assert usage is not None
    return Answered(name, time.time(), 200, usage.prompt_tokens, usage.completion_tokens)
