"""Bodies of the Responses API: what is refused and how it is said, and what chat makes of them."""

from typing import Any

import httpx
import pytest
from server_process import ServerProcess
from test_docs import documented, parameter_row

from gateway.errors import InvalidRequest
from gateway.protocol.response_chat import Conversation, converse
from gateway.protocol.response_items import ResponseInput
from gateway.protocol.response_parameters import RESPONSES
from gateway.protocol.response_request import (
    ResponseRequest,
    chat_document,
    chat_request_of,
    conversation_of,
    read_response_request,
)

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "1"}

# Fields beside a good input, the field named in the error, and the error's code.
BAD: list[tuple[dict[str, Any], str | None, str]] = [
    ({"input": None}, "input", "missing_required_parameter"),
    ({"input": 1}, "input", "invalid_type"),
    ({"input": []}, "input", "invalid_value"),
    ({"input": [1]}, "input[0]", "invalid_type"),
    ({"input": [{}]}, "input[0].type", "missing_required_parameter"),
    ({"input": [{"type": 1}]}, "input[0].type", "invalid_type"),
    ({"input": [{"type": "web_search_call"}]}, "input[0].type", "invalid_value"),
    ({"input": [{"type": "message"}]}, "input[0].role", "missing_required_parameter"),
    ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "invalid_value"),
    ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
    ({"input": [{"role": "user", "content": 1}]}, "input[0].content", "invalid_type"),
    ({"input": [{"role": "user", "content": []}]}, "input[0].content", "invalid_value"),
    ({"input": [{"role": "user", "content": ["x"]}]}, "input[0].content[0]", "invalid_type"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        "input[0].content[0].text",
        "missing_required_parameter",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "output_text", "text": "x"}]}]},
        "input[0].content[0].type",
        "invalid_value",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        "input[0].content[0].type",
        "invalid_value",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0].file_id",
        "invalid_value",
    ),
    ({"input": [{"role": "user", "content": "x", "id": ""}]}, "input[0].id", "invalid_value"),
    (
        {"input": [{"role": "user", "content": "x", "status": "x"}]},
        "input[0].status",
        "invalid_value",
    ),
    ({"input": [{**CALL, "arguments": "["}]}, "input[0].arguments", "invalid_value"),
    ({"input": [{**CALL, "arguments": "[]"}]}, "input[0].arguments", "invalid_value"),
    ({"input": [{**CALL, "name": None}]}, "input[0].name", "missing_required_parameter"),
    ({"input": [OUTPUT]}, "input[0]", "invalid_value"),
    ({"input": [CALL, {**OUTPUT, "call_id": "other"}]}, "input[1]", "invalid_value"),
    ({"input": [CALL, {**OUTPUT, "output": 1}]}, "input[1].output", "invalid_type"),
    ({"input": [{"type": "reasoning", "summary": [1]}]}, "input[0].summary[0]", "invalid_type"),
    ({"input": [{"type": "item_reference"}]}, "input[0].id", "missing_required_parameter"),
    ({"input": [{"id": "msg_unknown"}]}, "input[0].id", "item_not_found"),
    ({"model": "nope"}, "model", "model_not_found"),
    ({"instructions": 1}, "instructions", "invalid_type"),
    ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
    ({"max_output_tokens": "5"}, "max_output_tokens", "invalid_type"),
    ({"max_output_tokens": 9_999_999}, "max_output_tokens", "context_length_exceeded"),
    ({"min_tokens": 5, "max_output_tokens": 2}, "min_tokens", "invalid_value"),
    ({"temperature": 2.1}, "temperature", "invalid_value"),
    ({"top_p": -1}, "top_p", "invalid_value"),
    ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
    ({"include": ["everything"]}, "include[0]", "invalid_value"),
    ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
    ({"metadata": {"k" * 65: "v"}}, "metadata", "invalid_value"),
    ({"metadata": {str(k): "v" for k in range(17)}}, "metadata", "invalid_value"),
    ({"store": "yes"}, "store", "invalid_type"),
    ({"background": True, "store": False}, "background", "invalid_value"),
    ({"stream_options": {}}, "stream_options", "invalid_value"),
    ({"truncation": "maybe"}, "truncation", "invalid_value"),
    ({"conversation": "conv_1"}, "conversation", "unsupported_parameter"),
    ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
    ({"previous_response_id": "resp_none"}, "previous_response_id", "previous_response_not_found"),
    ({"previous_response_id": 1}, "previous_response_id", "invalid_type"),
    ({"tools": {}}, "tools", "invalid_type"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_parameter"),
    ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type", "unsupported_parameter"),
    ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0]", "invalid_value"),
    ({"tools": [TOOL, TOOL]}, "tools", "invalid_value"),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    ({"tool_choice": "sometimes"}, "tool_choice", "invalid_value"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}},
        "tool_choice.name",
        "invalid_value",
    ),
    (
        {"tools": [TOOL], "tool_choice": {"type": "mcp", "server_label": "x"}},
        "tool_choice.type",
        "unsupported_parameter",
    ),
    (
        {
            "tools": [TOOL],
            "tool_choice": {
                "type": "allowed_tools",
                "mode": "auto",
                "tools": [{"type": "function", "name": "g"}],
            },
        },
        "tool_choice.tools[0].name",
        "invalid_value",
    ),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
    (
        {"text": {"format": {"type": "json_schema", "name": "x"}}},
        "text.format.schema",
        "missing_required_parameter",
    ),
    (
        {"text": {"format": {"type": "json_schema", "json_schema": {"schema": {}}}}},
        "text.format",
        "invalid_value",
    ),
    ({"text": {"verbosity": "loud"}}, "text.verbosity", "invalid_value"),
    ({"reasoning": {"effort": "heroic"}}, "reasoning.effort", "invalid_value"),
    ({"stop": [""]}, "stop[0]", "invalid_value"),
    ({"logit_bias": {"x": 1}}, "logit_bias", "invalid_value"),
]


@pytest.mark.parametrize(("fields", "param", "code"), BAD, ids=lambda value: str(value)[:60])
def test_bad_bodies_are_refused_before_headers(
    server: ServerProcess, fields: dict[str, Any], param: str | None, code: str
) -> None:
    for stream in ({}, {"stream": True}):
        body = {"input": "Hello", **fields, **stream}
        reply = httpx.post(f"{server.url}/v1/responses", json=body, timeout=60)
        if "stream_options" in fields and stream:
            assert reply.status_code == 200
            continue
        error = reply.json()["error"]
        assert reply.status_code == (404 if code == "model_not_found" else 400), error
        assert (error["param"], error["code"]) == (param, code), error
        for other in ("messages", "max_tokens", "max_completion_tokens", "response_format"):
            assert f"'{other}" not in error["message"]


def test_unknown_urls_and_methods(server: ServerProcess) -> None:
    url = f"{server.url}/v1/responses"
    assert httpx.get(url).status_code == 405
    assert httpx.get(f"{url}/resp_none").json()["error"]["code"] == "not_found"
    assert httpx.delete(f"{url}/resp_none").status_code == 404
    assert httpx.post(f"{url}/resp_none/cancel").status_code == 404
    assert httpx.get(f"{url}/resp_none/input_items").status_code == 404
    assert httpx.get(f"{url}/resp_none?stream=maybe").status_code == 400
    assert httpx.get(f"{url}/resp_none?starting_after=x").status_code == 400
    assert httpx.get(f"{url}/%00%F0%9F%A6%8A").status_code == 404
    assert httpx.get(f"{url}/{'x' * 5000}").status_code == 404


def messages_of(items: list[Any], instructions: str | None = None) -> list[dict[str, Any]]:
    return converse(instructions, [], ResponseInput().read(items, "input")).messages


def test_items_of_one_turn_become_one_message() -> None:
    items = [
        {"role": "user", "content": "q"},
        {"type": "reasoning", "id": "rs", "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "let me see"}]},
        {**CALL, "call_id": "a"},
        {**CALL, "call_id": "b", "arguments": '{"x": 1}'},
        {**OUTPUT, "call_id": "a"},
        {**OUTPUT, "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
        {"role": "assistant", "content": "done"},
    ]
    user, assistant, first, second, last = messages_of(items)
    assert user == {"role": "user", "content": "q"}
    assert assistant["reasoning_content"] == "hm"
    assert assistant["content"] == "let me see"
    assert [call["id"] for call in assistant["tool_calls"]] == ["a", "b"]
    assert assistant["tool_calls"][1]["function"] == {"name": "f", "arguments": '{"x": 1}'}
    assert first == {"role": "tool", "tool_call_id": "a", "content": "1"}
    assert second["content"] == "2"
    assert last == {"role": "assistant", "content": "done"}


def test_instructions_at_the_start_become_one_system_message() -> None:
    items = [
        {"role": "developer", "content": "b"},
        {"role": "system", "content": "c"},
        {"role": "user", "content": "q"},
        {"role": "developer", "content": "d"},
    ]
    messages = messages_of(items, "a")
    assert messages[0] == {"role": "system", "content": "a\n\nb\n\nc"}
    assert [message["role"] for message in messages] == ["system", "user", "developer"]


def test_images_are_handed_on() -> None:
    parts = [
        {"type": "input_text", "text": "what?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
    ]
    (message,) = messages_of([{"role": "user", "content": parts}])
    assert message["content"] == [
        {"type": "text", "text": "what?"},
        {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64,AA==", "detail": "auto"},
        },
    ]


def request(**fields: Any) -> ResponseRequest:
    return read_response_request({"input": "Hello", **fields})


def document(**fields: Any) -> dict[str, Any]:
    asked = request(**fields)
    return chat_document(asked, conversation_of(asked, [], asked.input))


def test_every_field_reaches_chat_under_its_name() -> None:
    schema = {"type": "object", "properties": {}}
    got = document(
        max_output_tokens=5,
        temperature=0.5,
        seed=7,
        top_k=3,
        include=["message.output_text.logprobs"],
        top_logprobs=4,
        text={
            "format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True},
            "verbosity": "low",
        },
        reasoning={"effort": "high"},
        tools=[{**TOOL, "strict": True, "description": "d"}],
        tool_choice={"type": "function", "name": "f"},
        parallel_tool_calls=False,
    )
    function = {"name": "f", "parameters": {"type": "object"}, "strict": True, "description": "d"}
    assert got == {
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": False,
        "max_completion_tokens": 5,
        "temperature": 0.5,
        "seed": 7,
        "top_k": 3,
        "logprobs": True,
        "top_logprobs": 4,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": schema, "strict": True},
        },
        "verbosity": "low",
        "reasoning_effort": "high",
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "parallel_tool_calls": False,
    }


def test_allowed_tools_are_the_offered_ones() -> None:
    other = {**TOOL, "name": "g"}
    allowed = {
        "type": "allowed_tools",
        "mode": "required",
        "tools": [{"type": "function", "name": "g"}],
    }
    got = document(tools=[TOOL, other], tool_choice=allowed)
    assert [tool["function"]["name"] for tool in got["tools"]] == ["g"]
    assert got["tool_choice"] == "required"


def test_errors_of_chat_name_the_fields_of_this_api() -> None:
    image = {"type": "input_image", "image_url": "ftp://nowhere"}
    asked = request(
        input=[
            {"role": "developer", "content": "merged"},
            {"role": "user", "content": [{"type": "input_text", "text": "x"}, image]},
        ],
        instructions="merged too",
    )
    with pytest.raises(InvalidRequest) as refused:
        chat_request_of(asked, conversation_of(asked, [], asked.input))
    assert (refused.value.param or "").startswith("input[1].content[1]")
    assert "messages" not in refused.value.message


def test_the_oldest_go_first_and_no_result_loses_its_call() -> None:
    conversation = Conversation(
        [
            {"role": "system"},
            {"role": "user"},
            {"role": "assistant", "tool_calls": []},
            {"role": "tool"},
            {"role": "tool"},
            {"role": "user", "content": "last"},
        ],
        ["instructions", "a", "b", "c", "d", "e"],
        1,
    )
    once = conversation.without_oldest()
    assert once is not None
    assert once.sources == ["instructions", "b", "c", "d", "e"]
    twice = once.without_oldest()
    assert twice is not None
    assert twice.sources == ["instructions", "e"]
    assert twice.without_oldest() is None
    long = Conversation([{"role": "user"}] * 2048, ["x"] * 2048)
    rounds = 0
    while (shorter := long.without_oldest()) is not None:
        assert len(shorter.messages) < len(long.messages)
        long = shorter
        rounds += 1
    assert len(long.messages) == 1
    assert rounds < 40


def test_every_parameter_is_documented() -> None:
    rows = [parameter_row(parameter) for parameter in RESPONSES.values()]
    assert documented("responses.md", "| `") >= set(rows), "\n" + "\n".join(rows)
