"""Whatever way a text is cut, what comes out is the redaction of the whole text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.chat.parsing import (
    ContentDelta,
    Event,
    ReasoningDelta,
    ToolCallArguments,
    ToolCallStart,
)
from gateway.hooks.answer import HookedAnswer
from gateway.hooks.api import About, AnswerView, Channel
from gateway.hooks.patterns import read_pattern
from gateway.hooks.redact import KNOWN, Redact

ABOUT = About("r", "chat", None, "k", "o", "p", stream=True)
# Short texts of few letters, so that near misses and neighbours are frequent.
PATTERNS = [
    r"ab{1,3}",
    r"(?i:c)a|ca[ab]{0,4}c",
    r"\ba\b",
    r"^b",
    r"(?m:^b)",
    r"c$",
    r"a\Z",
    r"(?<=b)a(?!c)",
    r"(?<!a)b{2}(?=[ac]{2})",
    r"(a|b)\1c?",
    r"\Bc",
    r"(?<=^ab)c",
]
ALPHABET = "abc \nA"


def whole(patterns: list[str], text: str, new: str) -> str:
    """The same by its definition: the leftmost match, of these the first pattern's, again and
    again."""
    shown, position = "", 0
    while True:
        found = [m for p in patterns if (m := re.compile(p).search(text, position))]
        if not found:
            return shown + text[position:]
        first = min(found, key=lambda match: match.start())
        shown += text[position : first.start()] + new
        position = first.end()


def streamed(patterns: list[str], pieces: list[str], new: str) -> str:
    rewriter = Redact(patterns, new).rewriter(ABOUT, "content")
    return "".join([*map(rewriter.feed, pieces), rewriter.finish()])


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3, unique=True),
    st.lists(st.text(ALPHABET, max_size=7), max_size=10),
)
def test_the_cut_makes_no_difference(patterns: list[str], pieces: list[str]) -> None:
    assert streamed(patterns, pieces, "ab") == whole(patterns, "".join(pieces), "ab")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_secrets_are_found_wherever_they_are_cut(data: st.DataObject) -> None:
    secrets = ["ann.lee+x@mail.example.com", "4111 1111 1111 1111", "sk-" + "aB3_" * 10]
    words = st.sampled_from([*secrets, "to", "12", "a@b", "sk-short", "🦊", "."])
    text = " ".join(data.draw(st.lists(words, max_size=12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    found = streamed(list(KNOWN), pieces, "#")
    assert found == whole(list(KNOWN.values()), text, "#")
    assert not any(secret in found for secret in secrets)


def test_no_more_is_held_back_than_a_match_can_need() -> None:
    rewriter = Redact(["x{1,30}"]).rewriter(ABOUT, "content")
    sent = sum(len(rewriter.feed("abc")) for _ in range(1000))
    assert 3000 - 33 <= sent < 3000


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("a+", "bound its repetitions"),
        ("a{0,3}", "matches the empty text"),
        ("(", "not a regular expression"),
        ("a(?=b*)", "looks further"),
        (r"\b", "empty"),
    ],
)
def test_patterns_without_a_bound_are_refused(pattern: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_pattern(pattern)


def events_of(fed: list[list[Event]], replacement: str = "#") -> tuple[list[Event], AnswerView]:
    """What a choice's events become, and the answer as it is seen afterwards."""
    seen: list[AnswerView] = []
    hook = Redact(["secret", "s3"], replacement)

    def chain(channel: Channel) -> list[object]:
        return [hook.rewriter(ABOUT, channel)]

    answer = HookedAnswer(1, chain, seen.append)  # type: ignore[arg-type]
    shown = [
        event
        for position, events in enumerate(fed, 1)
        for event in answer.events(0, events, "stop" if position == len(fed) else None)
    ]
    answer.close("m", 1, 2)
    return shown, seen[0]


def test_texts_of_an_answer_keep_their_order_and_their_channels() -> None:
    shown, answer = events_of(
        [
            [ReasoningDelta("my sec")],
            [ReasoningDelta("ret"), ContentDelta("the s")],
            [ContentDelta("3 "), ToolCallStart(0, "id", "f")],
            [ToolCallArguments(0, '{"a":"se')],
            [ToolCallArguments(0, 'cret"}'), ToolCallStart(1, "id2", "g")],
            [ToolCallArguments(1, "{}")],
            [],
        ],
        replacement='"',
    )
    merged: list[list[str]] = []
    for event in shown:
        index = getattr(event, "index", "")
        name = f"{type(event).__name__}{index}"
        text = getattr(event, "text", "")
        if merged and merged[-1][0] == name:
            merged[-1][1] += text
        else:
            merged.append([name, text])
    assert merged == [
        ["ReasoningDelta", 'my "'],
        ["ContentDelta", 'the " '],
        ["ToolCallStart0", ""],
        ["ToolCallArguments0", '{"a":"\\""}'],
        ["ToolCallStart1", ""],
        ["ToolCallArguments1", "{}"],
    ]
    assert answer == AnswerView(('the " ',), ("stop",), "m", 1, 2)
