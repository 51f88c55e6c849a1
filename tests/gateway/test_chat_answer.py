"""Answers and chunks: valid for the SDK's types, and equal whichever way they are sent."""

import json
from typing import Any

import orjson
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from engine.base import Delta, TokenLogprob
from engine.fake.tokenizer import byte_tokenizer
from gateway.chat.tokens import TokenTexts
from gateway.chat.tool_calls import ToolCallParser
from gateway.protocol.chat_answer import AnswerFrame, AnswerGatherer, ChunkWriter
from gateway.telemetry.generation import GenerationMeter
from gateway.telemetry.model_metrics import ModelMetrics

CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


def frame(choices: int = 1, *, tools: bool = False, usage: bool = False) -> AnswerFrame:
    return AnswerFrame(
        id="chatcmpl-1",
        created=1,
        model='mo"del',
        fingerprint="fp_1",
        choices=choices,
        texts=TokenTexts(byte_tokenizer()),
        include_usage=usage,
        tool_parsers=[ToolCallParser(parallel=True) for _ in range(choices)] if tools else None,
    )


def deltas(*texts: str, finish: str = "stop", index: int = 0) -> list[Delta]:
    made = [Delta(index, [5], text) for text in texts]
    made.append(Delta(index, [], "", finish_reason=finish))  # type: ignore[arg-type]
    return made


def meter(choices: int = 1) -> GenerationMeter:
    return GenerationMeter(ModelMetrics(), 0.0, prompt_tokens=7, choices=choices)


def chunks(frame: AnswerFrame, made: list[Delta]) -> list[ChatCompletionChunk]:
    writer, count = ChunkWriter(frame), meter(frame.choices)
    data = b""
    for delta in made:
        count.see(delta)
        data += writer.write(delta)
    data += writer.finish(count)
    events = [event for event in data.split(b"\n\n") if event]
    assert all(event.startswith(b"data: {") for event in events)
    return [ChatCompletionChunk.model_validate(orjson.loads(event[6:])) for event in events]


def gathered(frame: AnswerFrame, made: list[Delta], *, logprobs: bool = False) -> ChatCompletion:
    gatherer, count = AnswerGatherer(frame, logprobs=logprobs), meter(frame.choices)
    for delta in made:
        count.see(delta)
        gatherer.take(delta)
    return ChatCompletion.model_validate(orjson.loads(gatherer.body(count)))


def test_any_text_survives_both_ways() -> None:
    texts = ['"\\\n\r\t', "\u2028\u0000", "🦊", "data: [DONE]\n\n", "", "</script>"]
    streamed = chunks(frame(usage=True), deltas(*texts))
    assert "".join(c.choices[0].delta.content or "" for c in streamed if c.choices) == "".join(
        texts
    )
    assert streamed[0].model == 'mo"del'
    assert streamed[-1].usage is not None
    assert streamed[-1].usage.completion_tokens == len(texts)
    whole = gathered(frame(), deltas(*texts))
    assert whole.choices[0].message.content == "".join(texts)


def test_choices_are_told_apart() -> None:
    made = [Delta(1, [5], "b"), Delta(0, [5], "a"), *deltas(index=1), *deltas(index=0)]
    streamed = chunks(frame(2), made)
    by_choice = {0: "", 1: ""}
    for chunk in streamed:
        by_choice[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert by_choice == {0: "a", 1: "b"}
    roles = [c.choices[0].index for c in streamed if c.choices[0].delta.role]
    assert roles == [1, 0]
    assert [c.message.content for c in gathered(frame(2), made).choices] == ["a", "b"]


def test_tool_calls_both_ways() -> None:
    made = deltas("Sure. ", *CALL, CALL)
    whole = gathered(frame(tools=True), made).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.content == "Sure."
    assert [call.function.name for call in whole.message.tool_calls or []] == ["f", "f"]
    streamed = chunks(frame(tools=True), made)
    calls = [call for c in streamed for call in c.choices[0].delta.tool_calls or []]
    assert [(call.index, call.function and call.function.arguments) for call in calls] == [
        (0, "{}"),
        (1, "{}"),
    ]
    assert "".join(c.choices[0].delta.content or "" for c in streamed) == "Sure."
    assert streamed[-1].choices[0].finish_reason == "tool_calls"
    cut_off = gathered(frame(tools=True), deltas(CALL, finish="length"))
    assert cut_off.choices[0].finish_reason == "length"


def test_logprobs_of_held_back_text_are_sent() -> None:
    entry = TokenLogprob(97, -0.1, ((97, -0.1),))
    made: list[Delta] = [
        Delta(0, [97], "", logprobs=[entry]),
        Delta(0, [97], "aa", logprobs=[entry], finish_reason="length"),
    ]
    streamed = chunks(frame(), made)
    sent: list[Any] = [
        token
        for c in streamed
        if c.choices[0].logprobs
        for token in c.choices[0].logprobs.content or []
    ]
    assert [token.token for token in sent] == ["a", "a"]
    whole = gathered(frame(), made, logprobs=True).choices[0].logprobs
    assert whole is not None
    assert len(whole.content or []) == 2


def test_stop_reason_is_shown_when_there_is_one() -> None:
    made = [Delta(0, [5], "x", finish_reason="stop", stop_reason="END")]
    gatherer = AnswerGatherer(frame(), logprobs=False)
    gatherer.take(made[0])
    assert json.loads(gatherer.body(meter()))["choices"][0]["stop_reason"] == "END"
