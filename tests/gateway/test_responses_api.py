"""The Responses API as the OpenAI SDK uses it, with the bundled model."""

import json
import time
from collections.abc import Iterator
from typing import Any, Literal

import jsonschema
import openai
import pydantic
import pytest
from openai.types.responses import Response
from server_process import NewServer, ServerProcess

from gateway.app import build_app
from gateway.settings import Settings
from gateway.state import new_state

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
MODEL = {"model": "bundled", "temperature": 0}


@pytest.fixture
def bundled(shared_server: NewServer) -> ServerProcess:
    return shared_server(ENGINE="onnx", MAX_NUM_SEQS="2")


@pytest.fixture
def sdk(bundled: ServerProcess) -> Iterator[openai.OpenAI]:
    url = f"{bundled.url}/v1"
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0, timeout=120) as client:
        yield client


def wait_for_end(sdk: openai.OpenAI, response: Response) -> Response:
    deadline = time.monotonic() + 120
    while response.status in ("queued", "in_progress"):
        assert time.monotonic() < deadline, "the background response never ended"
        time.sleep(0.05)
        response = sdk.responses.retrieve(response.id)
    return response


def strictly(response: Response) -> Response:
    """The answer checked by the SDK's own type, which the SDK itself does not do."""
    return Response.model_validate(response.model_dump(mode="json", by_alias=True), strict=False)


def check_against_schema(sdk: openai.OpenAI, response_id: str) -> None:
    """The stored response is what /openapi.json says, with every field that it names."""
    raw = sdk.responses.with_raw_response.retrieve(response_id).http_response.json()
    described = build_app(new_state(Settings(_env_file=None))).cold.openapi()
    schema = described["components"]["schemas"]["Response"]
    assert set(raw) == set(schema["properties"])
    whole = {"$ref": "#/components/schemas/Response", "components": described["components"]}
    jsonschema.validate(raw, whole, jsonschema.Draft202012Validator)


def test_an_answer_is_complete(sdk: openai.OpenAI) -> None:
    asked = time.time()
    response = sdk.responses.create(
        **MODEL,
        input="My name is Anna.",
        instructions="You are helpful.",
        max_output_tokens=64,
        metadata={"topic": "names"},
        user="ignored",
    )
    assert strictly(response).status == "completed"
    assert response.id.startswith("resp_")
    assert response.object == "response"
    assert abs(response.created_at - asked) < 60
    assert response.completed_at is not None
    assert "Anna" in response.output_text
    assert response.instructions == "You are helpful."
    assert response.metadata == {"topic": "names"}
    assert (response.temperature, response.max_output_tokens) == (0, 64)
    assert response.error is None
    assert response.incomplete_details is None
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    check_against_schema(sdk, response.id)


def test_a_stream_says_the_same_with_its_events_in_order(sdk: openai.OpenAI) -> None:
    whole = sdk.responses.create(**MODEL, input="Hello")
    with sdk.responses.stream(**MODEL, input="Hello") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas > 1
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == final.output_text
    assert final.usage == whole.usage or final.usage.output_tokens == whole.usage.output_tokens  # type: ignore[union-attr]
    assert sdk.responses.retrieve(final.id).output_text == text


async def test_the_asynchronous_client_streams_too(bundled: ServerProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{bundled.url}/v1", api_key="x", timeout=120) as sdk:
        whole = await sdk.responses.create(**MODEL, input="Hello")
        async with sdk.responses.stream(**MODEL, input="Hello") as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert kinds[-1] == "response.completed"
        assert final.output_text == whole.output_text
        items = [item async for item in sdk.responses.input_items.list(whole.id)]
        assert items[0].content[0].text == "Hello"  # type: ignore[union-attr]
        await sdk.responses.delete(whole.id)
        with pytest.raises(openai.NotFoundError):
            await sdk.responses.retrieve(whole.id)


def test_a_conversation_goes_on_from_a_stored_response(sdk: openai.OpenAI) -> None:
    first = sdk.responses.create(**MODEL, input="My name is Anna.", instructions="Be brief.")
    second = sdk.responses.create(
        **MODEL, input="What is my name?", previous_response_id=first.id, stream=True
    )
    *_, last = second
    assert last.type == "response.completed"
    assert "Anna" in last.response.output_text
    assert last.response.previous_response_id == first.id
    assert last.response.instructions is None
    third = sdk.responses.create(
        **MODEL, input="And what is my name?", previous_response_id=last.response.id
    )
    assert "Anna" in third.output_text
    alone = sdk.responses.create(**MODEL, input="What is my name?")
    assert "Anna" not in alone.output_text


def test_the_same_conversation_as_items_and_as_references(sdk: openai.OpenAI) -> None:
    first = sdk.responses.create(**MODEL, input="My name is Anna.")
    question: Any = {
        "role": "user",
        "content": [{"type": "input_text", "text": "What is my name?"}],
    }
    said: Any = [{"role": "user", "content": "My name is Anna."}]
    answered: Any = [item.model_dump(exclude_none=True) for item in first.output]
    as_items = sdk.responses.create(**MODEL, input=[*said, *answered, question])
    (asked,) = sdk.responses.input_items.list(first.id).data
    references: Any = [
        {"type": "item_reference", "id": asked.id},
        {"type": "item_reference", "id": first.output[0].id},
        question,
    ]
    by_reference = sdk.responses.create(**MODEL, input=references)
    chained = sdk.responses.create(**MODEL, input=[question], previous_response_id=first.id)
    assert "Anna" in chained.output_text
    assert as_items.output_text == by_reference.output_text == chained.output_text
    assert as_items.usage.input_tokens == by_reference.usage.input_tokens  # type: ignore[union-attr]
    assert as_items.usage.input_tokens == chained.usage.input_tokens  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "choice", ["auto", "required", {"type": "function", "name": "get_weather"}], ids=str
)
def test_a_function_is_called_and_its_output_taken(sdk: openai.OpenAI, choice: Any) -> None:
    first = sdk.responses.create(
        **MODEL, input="How is the weather in Rome?", tools=[WEATHER], tool_choice=choice
    )
    assert strictly(first).tools[0].name == "get_weather"  # type: ignore[union-attr]
    (call,) = first.output
    assert call.type == "function_call"
    assert (call.name, call.status) == ("get_weather", "completed")
    assert json.loads(call.arguments) == {"city": "Rome"}
    check_against_schema(sdk, first.id)
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    second = sdk.responses.create(
        **MODEL, input=[result], tools=[WEATHER], previous_response_id=first.id
    )
    assert second.output_text.strip()
    assert all(item.type == "message" for item in second.output)


def test_a_streamed_call_has_its_events(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(
        **MODEL, input="How is the weather in Rome?", tools=[WEATHER]
    ) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events if "arguments.delta" not in event.type]
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    (call,) = final.output
    assert call.type == "function_call"
    assert "".join(deltas) == call.arguments
    assert json.loads(call.arguments) == {"city": "Rome"}
    assert [event.sequence_number for event in events] == list(range(len(events)))


class City(pydantic.BaseModel):
    # Closed sets: a tiny model would not end a free string in time.
    name: Literal["Rome", "Paris", "Oslo"]
    capital: bool


def test_parse_gives_a_typed_answer(sdk: openai.OpenAI) -> None:
    parsed = sdk.responses.parse(
        model="bundled",
        input="Name a city.",
        text_format=City,
        temperature=0,
        max_output_tokens=400,
    )
    assert parsed.text is not None
    assert parsed.text.format is not None
    assert parsed.text.format.type == "json_schema"
    assert parsed.status == "completed"
    assert isinstance(parsed.output_parsed, City)
    with sdk.responses.stream(
        model="bundled", input="Name a city.", text_format=City, temperature=0
    ) as stream:
        done = [event for event in stream if event.type == "response.output_text.done"]
    assert [City.model_validate_json(event.text) for event in done]


def test_json_object(sdk: openai.OpenAI) -> None:
    response = sdk.responses.create(
        **MODEL, input="Give me JSON.", text={"format": {"type": "json_object"}}
    )
    # A tiny model may not find the end, but it cannot leave the form.
    assert response.output_text.lstrip().startswith("{")
    if response.status == "completed":
        assert isinstance(json.loads(response.output_text), dict)


def test_an_answer_cut_short_is_incomplete(sdk: openai.OpenAI) -> None:
    response = sdk.responses.create(**MODEL, input="Hello", max_output_tokens=2)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output[0].status == "incomplete"  # type: ignore[union-attr]
    assert response.usage is not None
    assert response.usage.output_tokens == 2
    check_against_schema(sdk, response.id)
    *_, last = sdk.responses.create(**MODEL, input="Hello", max_output_tokens=2, stream=True)
    assert last.type == "response.incomplete"
    assert last.response.output_text == response.output_text


def test_logprobs_spell_the_text(sdk: openai.OpenAI) -> None:
    asked: Any = {
        **MODEL,
        "input": "Hello",
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
    }
    response = strictly(sdk.responses.create(**asked))
    part = response.output[0].content[0]  # type: ignore[union-attr,index]
    spelled = b"".join(bytes(entry.bytes) for entry in part.logprobs).decode()  # type: ignore[union-attr]
    assert spelled.startswith(response.output_text)
    check_against_schema(sdk, response.id)
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)  # type: ignore[union-attr]
    with sdk.responses.stream(**asked) as stream:
        events = list(stream)
    streamed = [
        entry.token
        for event in events
        if event.type == "response.output_text.delta"
        for entry in event.logprobs
    ]
    assert streamed == [entry.token for entry in part.logprobs]  # type: ignore[union-attr]
    plain = sdk.responses.create(**MODEL, input="Hello", top_logprobs=2)
    assert plain.output[0].content[0].logprobs == []  # type: ignore[union-attr,index]


def test_background_work_is_polled(sdk: openai.OpenAI) -> None:
    at_once = sdk.responses.create(**MODEL, input="Hello", background=True)
    assert at_once.status == "queued"
    assert at_once.model
    ended = strictly(wait_for_end(sdk, at_once))
    assert ended.status == "completed"
    assert ended.background is True
    assert ended.output_text == sdk.responses.create(**MODEL, input="Hello").output_text
    assert sdk.responses.cancel(ended.id).status == "completed"


def test_background_work_is_cancelled(bundled: ServerProcess, sdk: openai.OpenAI) -> None:
    endless = {"ignore_eos": True, "max_output_tokens": 1900}
    for _ in range(3):
        running = sdk.responses.create(**MODEL, input="Go on", background=True, extra_body=endless)
        cancelled = sdk.responses.cancel(running.id)
        if cancelled.status != "incomplete":
            break  # a machine that stalls for seconds lets it run to its last token
    assert cancelled.status == "cancelled"
    assert sdk.responses.retrieve(running.id).status == "cancelled"
    assert sdk.responses.cancel(running.id).status == "cancelled"
    bundled.wait_for(
        lambda: bundled.metric("vllm:num_requests_running") == 0, "the engine to be free"
    )
    waiting = sdk.responses.create(**MODEL, input="Go on", background=True, extra_body=endless)
    sdk.responses.delete(waiting.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(waiting.id)
    bundled.wait_for(
        lambda: bundled.metric("vllm:num_requests_running") == 0, "the engine to be free"
    )


def test_a_background_stream_outlives_its_client(sdk: openai.OpenAI) -> None:
    stream = sdk.responses.create(**MODEL, input="Hello", background=True, stream=True)
    first = next(iter(stream))
    assert first.type == "response.created"
    stream.close()
    rest = list(sdk.responses.retrieve(first.response.id, stream=True, starting_after=0))
    assert [event.sequence_number for event in rest] == list(range(1, len(rest) + 1))
    assert rest[0].type == "response.queued"
    assert rest[-1].type == "response.completed"
    wait_for_end(sdk, first.response)
    again = list(sdk.responses.retrieve(first.response.id, stream=True, starting_after=3))
    assert [event.type for event in again] == [event.type for event in rest[3:]]
    plain = sdk.responses.create(**MODEL, input="Hello")
    with pytest.raises(openai.BadRequestError):
        sdk.responses.retrieve(plain.id, stream=True)


def test_input_items_are_paged(sdk: openai.OpenAI) -> None:
    texts = [f"message {number}" for number in range(5)]
    response = sdk.responses.create(
        **MODEL, input=[{"role": "user", "content": text} for text in texts], max_output_tokens=1
    )
    page = sdk.responses.input_items.list(response.id, limit=2)
    assert page.has_more
    listed = [item.content[0].text for item in page]  # type: ignore[union-attr]
    assert listed == texts[::-1]
    page = sdk.responses.input_items.list(response.id, limit=2, order="asc")
    assert [item.content[0].text for item in page] == texts  # type: ignore[union-attr]
    for query in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"after": "msg_none"}):
        with pytest.raises(openai.BadRequestError):
            sdk.responses.input_items.list(response.id, extra_query=query)


def test_truncation_drops_the_oldest(sdk: openai.OpenAI) -> None:
    story = "The quick brown fox jumps over the lazy dog. " * 20
    told: Any = [{"role": "user", "content": story} for _ in range(30)]
    told.append({"role": "user", "content": "My name is Anna."})
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(**MODEL, input=told)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input")
    response = sdk.responses.create(**MODEL, input=told, truncation="auto", max_output_tokens=50)
    assert response.truncation == "auto"
    assert response.usage is not None
    assert 100 < response.usage.input_tokens < 2048
    one: Any = [{"role": "user", "content": story * 30}]
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(**MODEL, input=one, truncation="auto")
    assert refused.value.code == "context_length_exceeded"


def test_what_is_not_stored_cannot_be_read(sdk: openai.OpenAI) -> None:
    response = sdk.responses.create(**MODEL, input="Hello", store=False)
    assert response.store is False  # type: ignore[attr-defined]
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.responses.retrieve(response.id)
    assert missing.value.code == "not_found"
    with pytest.raises(openai.BadRequestError) as unknown:
        sdk.responses.create(**MODEL, input="Hello", previous_response_id=response.id)
    assert unknown.value.code == "previous_response_not_found"
    assert unknown.value.param == "previous_response_id"
    with pytest.raises(openai.BadRequestError):
        sdk.responses.cancel(sdk.responses.create(**MODEL, input="Hello").id)
