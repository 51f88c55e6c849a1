"""Answers and chunks: valid for the SDK's types, and equal whichever way they are sent."""

import json
from dataclasses import dataclass
from typing import Any

import orjson
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from engine.base import Delta, TokenLogprob
from engine.fake.tokenizer import byte_tokenizer
from gateway.chat.output import ChoiceReader, OutputPlan
from gateway.chat.parsing import ContentDelta, Formats
from gateway.chat.tokens import TokenTexts
from gateway.chat.turn import TurnDelta
from gateway.protocol.chat_answer import AnswerFrame, AnswerGatherer, ChunkWriter
from gateway.telemetry.generation import GenerationMeter
from gateway.telemetry.model_metrics import ModelMetrics

CALL = '<tool_call>{"name": "f", "arguments": {}}</tool_call>'


@dataclass
class Count:
    """Stands in for the turn that the usage is told from."""

    meter: GenerationMeter
    reasoning_tokens: int = 0


def frame(choices: int = 1, *, usage: bool = False, **fields: Any) -> AnswerFrame:
    return AnswerFrame(
        id="chatcmpl-1",
        created=1,
        model='mo"del',
        fingerprint="fp_1",
        choices=choices,
        texts=TokenTexts(byte_tokenizer()),
        include_usage=usage,
        **fields,
    )


def deltas(*texts: str, finish: str = "stop", index: int = 0) -> list[Delta]:
    made = [Delta(index, [5], text) for text in texts]
    made.append(Delta(index, [], "", finish_reason=finish))  # type: ignore[arg-type]
    return made


def counted(made: list[Delta], choices: int = 1) -> Count:
    meter = GenerationMeter(ModelMetrics(), 0.0, prompt_tokens=7, choices=choices)
    for delta in made:
        meter.see(delta)
    return Count(meter)


def parts(made: list[Delta], plan: OutputPlan | None) -> list[TurnDelta]:
    """What the turn would make of the deltas; without a plan all text is content."""
    readers: dict[int, ChoiceReader] = {}
    found = []
    for delta in made:
        if plan is None:
            events: Any = [ContentDelta(delta.text)] if delta.text else []
            reason: Any = delta.finish_reason
        else:
            reader = readers.setdefault(delta.index, ChoiceReader(plan))
            events = reader.read(delta)
            stopped = delta.finish_reason == "stop"
            reason = "tool_calls" if stopped and reader.calls else delta.finish_reason
        found.append(TurnDelta(delta.index, events, delta, reason, delta.stop_reason))
    return found


def chunks(
    frame: AnswerFrame, made: list[Delta], plan: OutputPlan | None = None
) -> list[ChatCompletionChunk]:
    writer = ChunkWriter(frame, counted(made, frame.choices))
    data = b"".join(writer.write(part) for part in parts(made, plan)) + writer.finish()
    events = [event for event in data.split(b"\n\n") if event]
    assert all(event.startswith(b"data: {") for event in events)
    return [ChatCompletionChunk.model_validate(orjson.loads(event[6:])) for event in events]


def gathered(
    frame: AnswerFrame,
    made: list[Delta],
    plan: OutputPlan | None = None,
    *,
    logprobs: bool = False,
) -> ChatCompletion:
    gatherer = AnswerGatherer(frame, logprobs=logprobs)
    for part in parts(made, plan):
        gatherer.take(part)
    body = gatherer.body(counted(made, frame.choices))
    return ChatCompletion.model_validate(orjson.loads(body))


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


TOOLS = OutputPlan(Formats(tool="hermes"), tools={"f": {}})


def test_tool_calls_both_ways() -> None:
    made = deltas("Sure. ", *CALL, CALL)
    whole = gathered(frame(), made, TOOLS).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert (whole.message.content or "").strip() == "Sure."
    assert [call.function.name for call in whole.message.tool_calls or []] == ["f", "f"]  # type: ignore[union-attr]
    streamed = chunks(frame(), made, TOOLS)
    calls = [call for c in streamed for call in c.choices[0].delta.tool_calls or []]
    named = [(call.index, call.function.name) for call in calls if call.id and call.function]
    assert named == [(0, "f"), (1, "f")]
    for index in (0, 1):
        pieces = [c.function.arguments for c in calls if c.index == index and c.function]
        assert "".join(piece or "" for piece in pieces) == "{}"
    text = "".join(c.choices[0].delta.content or "" for c in streamed)
    assert text == whole.message.content
    assert streamed[-1].choices[0].finish_reason == "tool_calls"
    cut_off = gathered(frame(), deltas(CALL, finish="length"), TOOLS)
    assert cut_off.choices[0].finish_reason == "length"


def test_only_the_first_call_without_parallel_ones() -> None:
    plan = OutputPlan(Formats(tool="hermes"), tools={"f": {}}, parallel=False)
    made = deltas(CALL + CALL)
    assert len(gathered(frame(), made, plan).choices[0].message.tool_calls or []) == 1
    calls = [
        call for c in chunks(frame(), made, plan) for call in c.choices[0].delta.tool_calls or []
    ]
    assert {call.index for call in calls} == {0}


def test_reasoning_both_ways() -> None:
    plan = OutputPlan(Formats(reasoning="qwen3"), prompt_end="<think>\n")
    made = deltas("Hm", "m.</th", "ink>Yes", ".")
    whole = gathered(frame(), made, plan).choices[0].message
    assert whole.content == "Yes."
    assert whole.reasoning == whole.reasoning_content == "Hmm."  # type: ignore[attr-defined]
    streamed = [c.choices[0].delta for c in chunks(frame(), made, plan)]
    assert "".join(getattr(d, "reasoning", None) or "" for d in streamed) == "Hmm."
    assert "".join(d.content or "" for d in streamed) == "Yes."
    hidden = OutputPlan(Formats(reasoning="qwen3"), prompt_end="<think>", show_reasoning=False)
    assert not hasattr(gathered(frame(), made, hidden).choices[0].message, "reasoning")


def test_plain_text_is_written_the_same_by_the_short_way() -> None:
    long_way, short_way = (ChunkWriter(frame(2), counted([], 2)) for _ in range(2))
    for delta in (Delta(1, [5], "a\n"), Delta(0, [5], '"'), Delta(1, [5], "b")):
        part = TurnDelta(delta.index, [ContentDelta(delta.text)], delta)
        assert long_way.write(part) == short_way.write_text(delta.index, delta.text)


def test_token_ids_and_continuous_usage() -> None:
    made = [Delta(0, [5], "a"), Delta(0, [6], "", finish_reason="stop")]
    asked = frame(usage=True, prompt_ids=[1, 2, 3], continuous_usage=True)
    streamed = chunks(asked, made)
    assert streamed[0].prompt_token_ids == [1, 2, 3]  # type: ignore[attr-defined]
    ids = [getattr(c.choices[0], "token_ids", []) for c in streamed if c.choices]
    assert [token for part in ids for token in part] == [5, 6]
    assert all(c.usage is not None for c in streamed)
    whole = gathered(asked, made)
    assert whole.prompt_token_ids == [1, 2, 3]  # type: ignore[attr-defined]
    assert whole.choices[0].token_ids == [5, 6]  # type: ignore[attr-defined]


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
    gatherer.take(parts(made, None)[0])
    assert json.loads(gatherer.body(counted(made)))["choices"][0]["stop_reason"] == "END"
