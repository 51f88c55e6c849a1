"""The worker's side of the protocol: one JSON object per line on stdin and stdout.

Runs in the peers' own environments, so it imports nothing beyond the standard library.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, TextIO


@dataclass(frozen=True, slots=True)
class Job:
    """What one worker is started with."""

    model: str
    variant: str
    threads: int
    max_streams: int
    max_len: int
    options: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: ``tokens`` really seen in ``seconds`` of wall-clock time."""

    tokens: int
    seconds: float


class Target(Protocol):
    """What every engine is reduced to."""

    def info(self) -> dict[str, Any]:
        """Versions, build flags and bytes of weights read per decoded token."""

    def prefill(self, prompt: list[int]) -> Sample:
        """Time from handing over the prompt to its first output token."""

    def decode(self, prompts: list[list[int]], tokens: int) -> Sample:
        """Decode ``tokens`` per prompt together, timed from when each has its first."""

    def close(self) -> None:
        """Free what outlives the process."""


def open_channel() -> TextIO:
    """Keep stdout for the protocol and send everything else that prints to stderr."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return channel


def read_job() -> Job:
    """The job is the only command-line argument."""
    return Job(**json.loads(sys.argv[1]))


def random_prompts(seed: int, count: int, length: int) -> list[list[int]]:
    """Distinct prompts, so that no prefix cache can help; ids below every vocabulary."""
    rng = Random(seed)
    return [[rng.randrange(300, 4000) for _ in range(length)] for _ in range(count)]


def answer(target: Target, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out one command."""
    if command["op"] == "prefill":
        prompt = random_prompts(command["seed"], 1, command["prompt_len"])[0]
        sample = target.prefill(prompt)
        return {"tokens": sample.tokens, "seconds": sample.seconds}
    if command["op"] == "batch":
        lengths = command["prompt_lens"]
        prompts = random_prompts(command["seed"], len(lengths), max(lengths))
        cut = [prompt[:length] for prompt, length in zip(prompts, lengths, strict=True)]
        sample = target.batch(cut, command["tokens"])  # type: ignore[attr-defined]
        return {"tokens": sample.tokens, "seconds": sample.seconds}
    if command["op"] == "decode":
        prompts = random_prompts(command["seed"], command["streams"], command["prompt_len"])
        sample = target.decode(prompts, command["tokens"])
        return {"tokens": sample.tokens, "seconds": sample.seconds}
    raise ValueError(f"unknown op {command['op']!r}")


def lines(stream: TextIO) -> Iterator[dict[str, Any]]:
    """Commands until the harness closes the pipe or says quit."""
    for line in stream:
        command = json.loads(line)
        if command["op"] == "quit":
            return
        yield command


def serve(target: Target, channel: TextIO) -> None:
    """Announce the target, then answer commands until told to quit."""
    try:
        serve_commands(lambda command: answer(target, command), target.info(), channel)
    finally:
        target.close()


def serve_commands(
    run: Callable[[dict[str, Any]], dict[str, Any]], info: dict[str, Any], channel: TextIO
) -> None:
    """The same for anything that carries out commands."""

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")
        channel.flush()

    say({"ready": True, "info": info})
    for command in lines(sys.stdin):
        try:
            say(run(command))
        except Exception as error:
            traceback.print_exc()
            say({"error": f"{type(error).__name__}: {error}"})
