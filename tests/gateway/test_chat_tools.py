"""Tool calls through the official SDK, with the bundled model: it knows how to call, and is made
to where it would not."""

import json
from typing import Any

import jsonschema
import openai
import pytest
from server_process import MESSAGES, NewServer

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 30}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME: Any = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"zone": {"enum": ["UTC", "CET"]}, "day": {"type": "integer"}},
            "required": ["zone", "day"],
            "additionalProperties": False,
        },
    },
}
SCHEMAS = {t["function"]["name"]: t["function"]["parameters"] for t in (WEATHER, TIME)}
ASKED: Any = [{"role": "user", "content": "What is the weather in Rome?"}]


@pytest.fixture
def bundled(shared_server: NewServer) -> openai.OpenAI:
    server = shared_server(ENGINE="onnx", MAX_NUM_SEQS="1")
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=120)


def ask(client: openai.OpenAI, *, messages: Any = ASKED, **fields: Any) -> Any:
    answer = client.chat.completions.create(
        model="bundled", messages=messages, temperature=0, **fields
    )
    return answer.choices[0]


def streamed(client: openai.OpenAI, *, messages: Any = ASKED, **fields: Any) -> Any:
    """The choice as the SDK puts it together, and the pieces of its calls."""
    pieces = []
    with client.chat.completions.stream(
        model="bundled", messages=messages, temperature=0, **fields
    ) as stream:
        for event in stream:
            if event.type == "chunk" and event.chunk.choices:
                pieces += event.chunk.choices[0].delta.tool_calls or []
        return stream.get_final_completion().choices[0], pieces


def calls_of(choice: Any) -> list[tuple[str, Any]]:
    return [(c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls]


def test_a_call_of_the_models_own_will(bundled: openai.OpenAI) -> None:
    choice = ask(bundled, tools=[WEATHER])
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert calls_of(choice) == [("get_weather", {"city": "Rome"})]
    assert choice.message.tool_calls[0].id.startswith("call_")


def test_a_streamed_call_is_the_same_with_its_name_first(bundled: openai.OpenAI) -> None:
    choice, pieces = streamed(bundled, tools=[WEATHER])
    assert choice.finish_reason == "tool_calls"
    assert calls_of(choice) == [("get_weather", {"city": "Rome"})]
    first, *rest = pieces
    assert first.id
    assert first.type == "function"
    assert first.function.name == "get_weather"
    assert all(p.index == 0 and p.id is None and p.function.name is None for p in rest)


def test_the_result_of_a_call_is_taken_up(bundled: openai.OpenAI) -> None:
    call = ask(bundled, tools=[WEATHER]).message.tool_calls[0]
    messages = [
        *ASKED,
        {"role": "assistant", "tool_calls": [call.model_dump()]},
        {"role": "tool", "tool_call_id": call.id, "content": '{"weather": "sunny"}'},
    ]
    choice = ask(bundled, messages=messages, tools=[WEATHER])
    assert choice.finish_reason == "stop"
    assert "sunny" in choice.message.content


@pytest.mark.parametrize("tool_choice", ["none", "auto"])
def test_small_talk_is_answered_in_words(bundled: openai.OpenAI, tool_choice: Any) -> None:
    choice = ask(bundled, messages=MESSAGES, tools=[WEATHER], tool_choice=tool_choice)
    assert choice.finish_reason == "stop"
    assert choice.message.tool_calls is None
    assert choice.message.content.strip()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("temperature", [0, 1.3])
def test_required_calls_whatever_the_model_would_say(
    bundled: openai.OpenAI, stream: bool, temperature: float
) -> None:
    fields: Any = {
        "tools": [WEATHER, TIME],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "extra_body": {"temperature": temperature, "seed": 4},
        "messages": MESSAGES,
    }
    choice = streamed(bundled, **fields)[0] if stream else ask(bundled, **fields)
    assert choice.finish_reason == "tool_calls"
    [(name, arguments)] = calls_of(choice)
    jsonschema.validate(arguments, SCHEMAS[name])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tool", [WEATHER, TIME], ids=["get_weather", "get_time"])
def test_a_named_function_is_called(bundled: openai.OpenAI, tool: Any, stream: bool) -> None:
    named = {"type": "function", "function": {"name": tool["function"]["name"]}}
    fields: Any = {"tools": [WEATHER, TIME], "tool_choice": named, "messages": MESSAGES}
    choice = streamed(bundled, **fields)[0] if stream else ask(bundled, **fields)
    # OpenAI: what the caller decided is no reason to stop; vLLM does the same.
    assert choice.finish_reason == "stop"
    [(name, arguments)] = calls_of(choice)
    assert name == tool["function"]["name"]
    jsonschema.validate(arguments, SCHEMAS[name])


def test_strict_tools_are_enforced_in_the_midst_of_free_text(bundled: openai.OpenAI) -> None:
    strict = {**TIME, "function": {**TIME["function"], "strict": True}}
    for seed in range(4):
        choice = ask(
            bundled,
            messages=[{"role": "user", "content": "What time is it in Rome?"}],
            tools=[strict],
            extra_body={"temperature": 1.2, "seed": seed},
        )
        for name, arguments in calls_of(choice) if choice.message.tool_calls else []:
            assert name == "get_time"
            jsonschema.validate(arguments, SCHEMAS[name])


def test_tools_beside_a_format_give_one_or_the_other(bundled: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    asked = ask(bundled, tools=[WEATHER], response_format=wanted)
    assert calls_of(asked) == [("get_weather", {"city": "Rome"})]
    told = ask(bundled, messages=MESSAGES, tools=[TIME], tool_choice="none", response_format=wanted)
    jsonschema.validate(json.loads(told.message.content), schema)


def test_arguments_that_are_cut_short_end_in_length(bundled: openai.OpenAI) -> None:
    choice = ask(bundled, tools=[WEATHER], tool_choice="required", max_tokens=14)
    assert choice.finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "some"}, "tool_choice"),
        (
            {
                "tools": [WEATHER],
                "tool_choice": {"type": "function", "function": {"name": "get_time"}},
            },
            "tool_choice",
        ),
        ({"tools": [WEATHER, WEATHER], "tool_choice": "required"}, "tools[1].function.name"),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "strict": True,
                            "parameters": {"type": "object", "not": {"required": ["a"]}},
                        },
                    }
                ]
            },
            "tools",
        ),
        ({"tools": [{"type": "function", "function": {"name": ""}}]}, "tools[0].function.name"),
    ],
)
def test_errors_name_the_field(
    bundled: openai.OpenAI, fields: dict[str, Any], param: str, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(bundled, stream=stream, **fields)
    assert caught.value.param == param


def test_the_setting_turns_tools_off(new_server: NewServer) -> None:
    server = new_server(ENGINE="onnx", TOOL_PARSER="none").wait_ready()
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0)
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, tools=[WEATHER])
    assert caught.value.param == "tools"


def test_an_unknown_format_stops_the_start(new_server: NewServer) -> None:
    server = new_server(TOOL_PARSER="hermez")
    assert server.wait_exit() != 0
    assert "TOOL_PARSER" in server.logs()
    assert "hermes" in server.logs()
