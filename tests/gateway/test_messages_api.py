"""Anthropic's own SDK against the bundled model: it must not notice the difference."""

import asyncio
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import Message, ToolUseBlock
from server_process import NewServer, ServerProcess

HELLO: Any = [{"role": "user", "content": "Hello there"}]
WEATHER: Any = [{"role": "user", "content": "How is the weather in Paris?"}]
GREEDY: Any = {"temperature": 0}
TOOL: Any = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
ASKED: Any = {"model": "bundled", "max_tokens": 100, "extra_body": GREEDY}


@pytest.fixture
def bundled(shared_server: NewServer) -> ServerProcess:
    return shared_server(ENGINE="onnx", MAX_NUM_SEQS="1")


@pytest.fixture
def claude(bundled: ServerProcess) -> Iterator[anthropic.Anthropic]:
    """The SDK, checking every response against its types."""
    with anthropic.Anthropic(
        base_url=bundled.url, api_key="x", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def only_text(message: Message) -> str:
    (block,) = message.content
    assert block.type == "text"
    return block.text


def test_an_answer_in_one_piece(claude: anthropic.Anthropic) -> None:
    message = claude.messages.create(messages=HELLO, **ASKED)
    assert only_text(message).strip()
    assert message.id.startswith("msg_")
    assert message.type == "message"
    assert message.role == "assistant"
    assert message.stop_reason == "end_turn"
    assert message._request_id
    usage = message.usage
    assert usage.input_tokens + (usage.cache_read_input_tokens or 0) > 0
    assert usage.output_tokens > 0


def test_streams_say_the_same(claude: anthropic.Anthropic) -> None:
    whole = claude.messages.create(messages=HELLO, **ASKED)
    raw = ""
    for event in claude.messages.create(messages=HELLO, stream=True, **ASKED):
        if event.type == "content_block_delta" and event.delta.type == "text_delta":
            raw += event.delta.text
    assert raw == only_text(whole)
    with claude.messages.stream(messages=HELLO, **ASKED) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == only_text(whole)
    assert len(pieces) > 1
    assert only_text(final) == only_text(whole)
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


async def test_the_asynchronous_client(bundled: ServerProcess) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=bundled.url, api_key="x", max_retries=0, _strict_response_validation=True
    ) as client:
        whole = await client.messages.create(messages=HELLO, **ASKED)
        async with client.messages.stream(messages=HELLO, **ASKED) as stream:
            final = await stream.get_final_message()
        assert only_text(final) == only_text(whole)
        answers = await asyncio.gather(
            *(client.messages.create(messages=HELLO, **ASKED) for _ in range(3))
        )
    assert {only_text(answer) for answer in answers} == {only_text(whole)}


def test_a_tool_is_used_and_its_result_taken(claude: anthropic.Anthropic) -> None:
    used = claude.messages.create(messages=WEATHER, tools=[TOOL], **ASKED)
    assert used.stop_reason == "tool_use"
    call = used.content[-1]
    assert isinstance(call, ToolUseBlock)
    assert call.name == "get_weather"
    assert call.input == {"city": "Paris"}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny, 21 degrees"}
    told = claude.messages.create(
        messages=[*WEATHER, used.to_param(), {"role": "user", "content": [result]}],
        tools=[TOOL],
        **ASKED,
    )
    assert only_text(told).strip()


def test_a_tool_use_is_streamed_as_json(claude: anthropic.Anthropic) -> None:
    spelled = ""
    with claude.messages.stream(messages=WEATHER, tools=[TOOL], **ASKED) as stream:
        for event in stream:
            if event.type == "input_json":
                spelled += event.partial_json
        final = stream.get_final_message()
    call = final.content[-1]
    assert isinstance(call, ToolUseBlock)
    assert call.input == {"city": "Paris"}
    assert spelled.replace(" ", "") == '{"city":"Paris"}'


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_tool_use_can_be_forced(claude: anthropic.Anthropic, choice: Any) -> None:
    forced = claude.messages.create(
        messages=HELLO,
        tools=[TOOL],
        tool_choice={**choice, "disable_parallel_tool_use": True},
        **ASKED,
    )
    (call,) = forced.content
    assert isinstance(call, ToolUseBlock)
    assert call.name == "get_weather"
    assert isinstance(call.input["city"], str)
    assert forced.stop_reason in ("tool_use", "max_tokens")


def test_a_schema_holds_the_answer(claude: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}},
        "required": ["mood"],
        "additionalProperties": False,
    }
    held: Any = {"format": {"type": "json_schema", "schema": schema}}
    message = claude.messages.create(messages=HELLO, output_config=held, **ASKED)
    assert only_text(message).replace(" ", "").replace("\n", "") in (
        '{"mood":"good"}',
        '{"mood":"bad"}',
    )


def test_thinking_is_shown_when_asked_for(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(messages=HELLO, thinking={"type": "adaptive"}, **ASKED) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    thought, said = final.content
    assert thought.type == "thinking"
    assert thought.thinking
    assert thought.signature
    assert said.type == "text"
    assert not said.text.startswith("\n")
    assert final.usage.output_tokens_details is not None
    assert final.usage.output_tokens_details.thinking_tokens > 0
    again = claude.messages.create(
        messages=[*HELLO, final.to_param(), *HELLO], thinking={"type": "adaptive"}, **ASKED
    )
    assert again.content


def test_a_stop_sequence_is_named(claude: anthropic.Anthropic) -> None:
    whole = only_text(claude.messages.create(messages=HELLO, **ASKED))
    word = whole.split()[2]
    stopped = claude.messages.create(messages=HELLO, stop_sequences=[word], **ASKED)
    assert stopped.stop_reason == "stop_sequence"
    assert stopped.stop_sequence == word
    assert only_text(stopped) == whole[: whole.index(word)]


def test_the_answer_is_as_long_as_allowed(claude: anthropic.Anthropic) -> None:
    asked = {**ASKED, "max_tokens": 3}
    short = claude.messages.create(messages=HELLO, **asked)
    assert short.stop_reason == "max_tokens"
    assert short.usage.output_tokens == 3


def test_more_tokens_than_the_context_holds_fill_it(claude: anthropic.Anthropic) -> None:
    asked = {**ASKED, "max_tokens": 64_000}
    with claude.messages.stream(messages=HELLO, **asked) as stream:
        assert only_text(stream.get_final_message()).strip()
    long: Any = [{"role": "user", "content": "x " * 1010}]
    with claude.messages.stream(messages=long, **asked) as stream:
        final = stream.get_final_message()
    total = final.usage.input_tokens + (final.usage.cache_read_input_tokens or 0)
    if final.stop_reason != "end_turn":
        assert final.stop_reason == "model_context_window_exceeded"
        assert total + final.usage.output_tokens == 2048


def test_a_prefilled_answer_is_gone_on_with(claude: anthropic.Anthropic) -> None:
    whole = only_text(claude.messages.create(messages=HELLO, **ASKED))
    begun = whole[: whole.index(" ", 8)]
    rest = claude.messages.create(
        messages=[*HELLO, {"role": "assistant", "content": begun}], **ASKED
    )
    assert begun + only_text(rest) == whole


def test_cached_tokens_are_not_input_tokens(claude: anthropic.Anthropic) -> None:
    text = "Tell me about the sea and the hills. " * 20
    long: Any = [{"role": "user", "content": text}]
    asked = {**ASKED, "max_tokens": 2}
    first, second = (claude.messages.create(messages=long, **asked).usage for _ in range(2))
    assert second.cache_read_input_tokens
    assert first.input_tokens + (first.cache_read_input_tokens or 0) == (
        second.input_tokens + second.cache_read_input_tokens
    )


def test_tokens_are_counted_as_they_are_used(claude: anthropic.Anthropic) -> None:
    asked: Any = {"messages": WEATHER, "system": "Be kind.", "tools": [TOOL]}
    counted = claude.messages.count_tokens(model="bundled", **asked)
    used = claude.messages.create(**asked, **ASKED).usage
    assert counted.input_tokens == used.input_tokens + (used.cache_read_input_tokens or 0)
    shorter = claude.messages.count_tokens(model="bundled", messages=WEATHER)
    assert shorter.input_tokens < counted.input_tokens


def test_the_templates_mark_of_thinking_is_counted(claude: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "adaptive"}
    plain = claude.messages.count_tokens(model="bundled", messages=HELLO)
    counted = claude.messages.count_tokens(model="bundled", messages=HELLO, thinking=thinking)
    used = claude.messages.create(messages=HELLO, thinking=thinking, **ASKED).usage
    assert counted.input_tokens > plain.input_tokens
    assert counted.input_tokens == used.input_tokens + (used.cache_read_input_tokens or 0)


def test_tokens_beyond_the_context_are_counted(claude: anthropic.Anthropic) -> None:
    long: Any = [{"role": "user", "content": "x " * 5000}]
    assert claude.messages.count_tokens(model="bundled", messages=long).input_tokens > 5000


def test_an_image_is_refused_where_it_was_sent(claude: anthropic.Anthropic) -> None:
    image: Any = {"type": "base64", "media_type": "image/png", "data": "aGk="}
    block: Any = {"type": "image", "source": image}
    content = [{"type": "text", "text": "What is this?"}, block]
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(messages=[{"role": "user", "content": content}], **ASKED)
    assert "messages[0].content" in str(caught.value)


def test_raw_events_have_names(bundled: ServerProcess) -> None:
    body = {"model": "bundled", "max_tokens": 3, "messages": HELLO, "stream": True}
    reply = httpx.post(f"{bundled.url}/v1/messages?beta=true", json=body, timeout=60)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["request-id"] == reply.headers["x-request-id"]
    events = reply.text.strip().split("\n\n")
    names = [event.partition("\n")[0] for event in events]
    assert names[0] == "event: message_start"
    assert names[-2:] == ["event: message_delta", "event: message_stop"]
    assert "[DONE]" not in reply.text
