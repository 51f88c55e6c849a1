"""Answers of other servers through hooks: every protocol, cut anywhere, by deltas and by bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hooked_streams import (
    PROTOCOLS,
    SECRETS,
    Json,
    documents,
    hooked,
    item_of,
    passed,
    redacted,
    sse,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import HookFailed
from gateway.hooks.answer import HookedAnswer
from gateway.hooks.api import AnswerView, Channel, TextRewriter
from gateway.relay.errors import NotUnderstood
from gateway.relay.hooked.stream import HookedBytes

WORDS = st.sampled_from([*SECRETS, "to", "12", "a@b", "🦊", ".", "Grüße"])
TEXT = st.lists(WORDS, max_size=6).map(" ".join)


@st.composite
def cut_texts(draw: Any) -> dict[str, list[str]]:
    """Reasoning, content and arguments, each in pieces."""
    found = {}
    for name in ("reasoning", "content", "arguments"):
        text = draw(TEXT)
        if name == "arguments":
            text = json.dumps({"to": text}, ensure_ascii=False)
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
        ends = zip([0, *cuts], [*cuts, len(text)], strict=True)
        found[name] = [text[a:b] for a, b in ends if b > a]
    return found


@pytest.mark.parametrize("api", PROTOCOLS)
@settings(max_examples=40, deadline=None)
@given(pieces=cut_texts(), data=st.data())
def test_the_cuts_make_no_difference(api: str, pieces: dict[str, list[str]], data: Any) -> None:
    stream_of, texts_of = PROTOCOLS[api]
    stream = stream_of(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    split = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    seen: list[AnswerView] = []
    answer = hooked(api, seen=seen)
    shown = passed(answer, split)
    wanted = {name: redacted("".join(parts)) for name, parts in pieces.items()}
    assert texts_of(documents(shown)) == wanted
    assert not any(secret.encode() in shown for secret in SECRETS)
    assert b"secret_twin" not in shown
    answer.close("m", 1, 2)
    assert seen == [AnswerView((wanted["content"],), ("tool_calls",), "m", 1, 2)]


FIXED = {
    "reasoning": ["I will mail an", "n.lee@mail.exam", "ple.com 🦊"],
    "content": ["Pay 4111 1111", " 1111 1111 to 4", "2. Gr", "üße"],
    "arguments": ['{"to": "ann.lee@ma', 'il.example.com"}'],
}


@pytest.mark.parametrize("api", PROTOCOLS)
def test_a_stream_split_at_every_byte_is_the_same_stream(api: str) -> None:
    stream_of, texts_of = PROTOCOLS[api]
    stream = stream_of(FIXED)
    whole = passed(hooked(api), [stream])
    assert texts_of(documents(whole)) == {k: redacted("".join(v)) for k, v in FIXED.items()}
    for cut in range(0, len(stream), 1 if api == "chat" else 7):
        assert passed(hooked(api), [stream[:cut], stream[cut:]]) == whole, cut
    assert passed(hooked(api), [stream[i : i + 1] for i in range(len(stream))]) == whole


def test_choices_and_prompts_of_completions_do_not_mix() -> None:
    parts = [(0, "ann.lee@ma"), (1, "x 4111 1111 "), (0, "il.example.com!"), (1, "1111 1111")]
    chunks: list[Json] = [
        {"id": "c", "choices": [{"index": i, "text": text, "logprobs": {"tokens": [text]}}]}
        for i, text in parts
    ]
    ends = [{"index": i, "text": "", "finish_reason": "length"} for i in range(2)]
    stream = sse([*chunks, {"id": "c", "choices": ends}])
    shown = documents(passed(hooked("completions", choices=2), [stream]))
    texts = {0: "", 1: ""}
    for document in shown:
        for choice in document["choices"]:
            texts[choice["index"]] += choice["text"]
            assert choice.get("logprobs") is None
    assert texts == {0: "#!", 1: "x #"}
    with pytest.raises(NotUnderstood):
        passed(hooked("completions", choices=1), [stream])


def test_what_is_held_back_comes_before_the_end_that_a_server_leaves_out() -> None:
    begun = {"id": "c", "choices": [{"index": 0, "delta": {"content": "mail ann@b"}}]}
    for done in (True, False):
        shown = passed(hooked("chat"), [sse([begun], done=done)])
        assert chat_content(documents(shown)) == "mail ann@b"
        assert shown.endswith(b"data: [DONE]\n\n") == done


def chat_content(shown: list[Json]) -> str:
    return "".join(c["delta"].get("content", "") for d in shown for c in d["choices"])


async def whole(api: Any, document: Json, choices: int = 1) -> Any:
    answer = hooked(api, choices)
    return json.loads(await answer.whole(json.dumps(document).encode()))


async def test_answers_in_one_piece() -> None:
    text, safe = f"to {SECRETS[0]}.", "to #."
    call = {"id": "c", "function": {"name": "f", "arguments": json.dumps({"to": text})}}
    message = {"role": "assistant", "content": text, "reasoning_content": text, "reasoning": text}
    message |= {"refusal": text, "tool_calls": [call], "audio": {"transcript": text}}
    choice = {"index": 1, "message": message, "finish_reason": "stop", "logprobs": {"x": text}}
    shown = await whole("chat", {"id": "a", "choices": [choice], "usage": {"n": 1}}, choices=2)
    assert SECRETS[0] not in json.dumps(shown)
    found = shown["choices"][0]
    assert found["logprobs"] is None
    assert {found["message"][n] for n in ("content", "reasoning", "reasoning_content")} == {safe}
    assert json.loads(found["message"]["tool_calls"][0]["function"]["arguments"]) == {"to": safe}
    assert shown["usage"] == {"n": 1}
    parts = [{"type": "text", "text": "a ann.lee@mail."}, {"type": "text", "text": "example.com"}]
    in_parts = {"index": 0, "message": {"role": "assistant", "content": parts}}
    shown = await whole("chat", {"choices": [in_parts]})
    assert "".join(p["text"] for p in shown["choices"][0]["message"]["content"]) == "a #"
    blocks = [
        {"type": "thinking", "thinking": text, "signature": "s"},
        {"type": "text", "text": text, "citations": [{"cited_text": text}]},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"to": text}},
        {"type": "something_new", "id": "n", "deep": [{"of": text}]},
    ]
    shown = await whole("messages", {"content": blocks, "stop_reason": "end_turn"})
    assert shown["content"] == [
        {"type": "thinking", "thinking": safe, "signature": "s"},
        {"type": "text", "text": safe},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"to": safe}},
        {"type": "something_new", "id": "n", "deep": [{"of": safe}]},
    ]
    texts = {"reasoning": text, "content": text, "arguments": json.dumps({"to": text})}
    output = [item_of(place, texts) for place in range(3)]
    output.append({"type": "mcp_call", "id": "i", "arguments": "{}", "output": text})
    document = {"status": "completed", "output": output, "output_text": text}
    shown = await whole("responses", document)
    assert SECRETS[0] not in json.dumps(shown)
    safe_texts = {name: redacted(value) for name, value in texts.items()}
    assert shown["output"][:3] == [item_of(place, safe_texts) for place in range(3)]
    assert shown["output"][3]["output"] == safe


async def test_where_hooks_only_look_on_not_a_byte_changes() -> None:
    seen: list[AnswerView] = []

    def chain(channel: Channel) -> list[TextRewriter]:
        return []

    for api, (stream_of, _) in PROTOCOLS.items():
        answer = HookedBytes(api, HookedAnswer(1, chain, seen.append, rewrites=False))  # type: ignore[arg-type]
        stream = stream_of(FIXED)
        assert passed(answer, [stream]) == stream
        answer.close("m", 1, 2)
        assert seen.pop() == AnswerView(("".join(FIXED["content"]),), ("tool_calls",), "m", 1, 2)
    body = b'{ "choices": [{"index": 0, "message": {"content": "x"}}] }'
    answer = HookedBytes("chat", HookedAnswer(1, chain, seen.append, rewrites=False))
    assert await answer.whole(body) is body


def test_a_rewriter_that_fails_fails_the_answer() -> None:
    class Tripping:
        def feed(self, text: str) -> str:
            raise HookFailed("hook x failed")

        def finish(self) -> str:
            return ""

    for api, (stream_of, _) in PROTOCOLS.items():
        answer = HookedBytes(api, HookedAnswer(1, lambda channel: [Tripping()], None))  # type: ignore[arg-type]
        with pytest.raises(HookFailed):
            passed(answer, [stream_of(FIXED)])
