"""Plain text must cost next to nothing: it is most of what is ever parsed."""

from __future__ import annotations

import time

import pytest
from parsing_cases import CASES

from gateway.chat.parsing import Formats, make_parser

FEEDS = 20_000


def microseconds(formats: Formats, head: str, piece: str) -> float:
    best = float("inf")
    for _ in range(5):
        parser = make_parser(formats, tools={}, prompt="")
        parser.feed(head)
        start = time.process_time()
        for _ in range(FEEDS):
            parser.feed(piece)
        best = min(best, time.process_time() - start)
    return best / FEEDS * 1e6


# About 1 µs on the machine this was written on (2 for Mistral, whose thinking may begin
# anywhere); the bound leaves room for slower and busier ones.
@pytest.mark.parametrize("tool", sorted({case.tool for case in CASES} - {"openai"}))
@pytest.mark.parametrize("reasoning", [None, "qwen3", "mistral", "granite"])
def test_plain_text_passes_straight_through(tool: str, reasoning: str | None) -> None:
    assert microseconds(Formats(tool, reasoning), "Hello ", " word") < 10


def test_arguments_stream_at_speed() -> None:
    head = '<tool_call>{"name": "f", "arguments": {"text": "'
    assert microseconds(Formats("hermes", "qwen3"), head, " word") < 20


def test_a_large_call_in_one_piece() -> None:
    text = '<tool_call>{"name": "f", "arguments": {"t": "' + 'line \\"x\\"\\n' * 50_000 + '"}}'
    parser = make_parser(Formats("hermes", "qwen3"), tools={}, prompt="")
    start = time.process_time()
    parser.feed(text)
    assert time.process_time() - start < 2
