"""Anthropic's requests as chat requests, and errors that name the caller's own fields."""

from typing import Any

import pytest
from jsonschema import Draft202012Validator

from engine.base import RequestRejected
from gateway.api.openapi_messages import SCHEMAS
from gateway.errors import InvalidRequest
from gateway.protocol.anthropic_blocks import Turns
from gateway.protocol.anthropic_chat import to_chat
from gateway.protocol.anthropic_json import whole_object
from gateway.protocol.anthropic_request import MessageRequest, read_message_request

DOCUMENTED = Draft202012Validator(SCHEMAS["MessageRequest"])
USER = {"role": "user", "content": "Hi"}
TOOL = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
USE = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Rome"}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}
PNG = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}


def read(*messages: Any, **fields: Any) -> MessageRequest:
    document = {"model": "m", "max_tokens": 2000, "messages": list(messages) or [USER], **fields}
    document = {key: value for key, value in document.items() if value is not ...}
    request = read_message_request(document)
    DOCUMENTED.validate(document)  # what is accepted must be documented
    return request


def refusal(*messages: Any, **fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(*messages, **fields)
    return caught.value


def said(request: MessageRequest) -> list[tuple[str, Any]]:
    return [(message["role"], message["content"]) for message in request.chat.messages]


def test_text_in_every_form() -> None:
    text = [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]
    request = read(
        {"role": "user", "content": [*text, {"type": "text", "text": "b", "citations": None}]},
        {"role": "assistant", "content": text},
        USER,
        system=[{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
    )
    assert said(request) == [
        ("system", "one\ntwo"),
        ("user", "a\nb"),
        ("assistant", "a"),
        ("user", "Hi"),
    ]
    assert said(read(system="be kind"))[0] == ("system", "be kind")


def test_turns_of_one_speaker_are_put_together() -> None:
    request = read(USER, {"role": "user", "content": "there"})
    assert said(request) == [("user", "Hi\nthere")]


def test_a_system_message_may_stand_anywhere() -> None:
    request = read(USER, {"role": "system", "content": "be brief"}, USER)
    assert [role for role, _ in said(request)] == ["user", "system", "user"]


def test_a_tool_conversation() -> None:
    thought = {"type": "thinking", "thinking": "which city?", "signature": "x"}
    hidden = {"type": "redacted_thinking", "data": "y"}
    request = read(
        USER,
        {"role": "assistant", "content": [thought, hidden, {"type": "text", "text": "ok"}, USE]},
        {"role": "user", "content": [RESULT, {"type": "text", "text": "and now?"}]},
        tools=[TOOL],
    )
    assistant, result, user = request.chat.messages[1:]
    assert assistant["content"] == "ok"
    assert assistant["reasoning_content"] == "which city?"
    function = {"name": "get_weather", "arguments": {"city": "Rome"}}
    assert assistant["tool_calls"] == [{"id": "toolu_1", "type": "function", "function": function}]
    assert result == {"role": "tool", "tool_call_id": "toolu_1", "content": "sunny"}
    assert user == {"role": "user", "content": "and now?"}
    offered = request.chat.tools[0]["function"]
    assert offered["parameters"] == TOOL["input_schema"]
    assert offered["name"] == "get_weather"


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "a\nb"),
        ({}, ""),
        ({"content": "no such city", "is_error": True}, "Error:\nno such city"),
        ({"content": "Error: 404", "is_error": True}, "Error: 404"),
        ({"is_error": True}, "Error:"),
    ],
)
def test_tool_results(result: dict[str, Any], content: str) -> None:
    block = {"type": "tool_result", "tool_use_id": "toolu_1", **result}
    request = read(
        USER, {"role": "assistant", "content": [USE]}, {"role": "user", "content": [block]}
    )
    assert request.chat.messages[-1]["content"] == content


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([USER, {"role": "assistant", "content": [USE]}, USER], "messages[1].content[0]"),
        ([USER, {"role": "assistant", "content": [USE]}], "messages[1].content[0]"),
        ([{"role": "user", "content": [RESULT]}], "messages[0].content[0].tool_use_id"),
        (
            [
                USER,
                {"role": "assistant", "content": [USE]},
                {"role": "user", "content": [{"type": "text", "text": "x"}, RESULT]},
            ],
            "messages[2].content[1]",
        ),
    ],
)
def test_uses_and_results_must_pair_up(messages: list[Any], param: str) -> None:
    assert refusal(*messages).param == param


def test_a_last_message_of_the_assistant_is_gone_on_with() -> None:
    request = read(USER, {"role": "assistant", "content": "The answer is ("})
    assert request.chat.continue_final_message
    assert not request.chat.add_generation_prompt
    assert not read(USER, {"role": "assistant", "content": []}).chat.continue_final_message
    error = refusal(USER, {"role": "assistant", "content": "The answer is "})
    assert error.param == "messages[1].content"
    assert "trailing whitespace" in error.message


@pytest.mark.parametrize(
    ("choice", "mode", "parallel"),
    [
        ({"type": "auto"}, "auto", True),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "get_weather"}, "named", True),
        ({"type": "none"}, "none", True),
    ],
)
def test_tool_choice(choice: dict[str, Any], mode: str, parallel: bool) -> None:
    chat = read(tools=[TOOL], tool_choice=choice).chat
    assert chat.tool_choice.mode == mode
    assert chat.parallel_tool_calls is parallel
    assert bool(chat.tools) is (mode != "none")


def test_sampling_fields() -> None:
    chat = read(
        temperature=0.5, top_p=0.9, top_k=7, stop_sequences=["X"], stream=True, metadata={"a": 1}
    ).chat
    assert (chat.fields["temperature"], chat.fields["top_p"], chat.fields["top_k"]) == (0.5, 0.9, 7)
    assert chat.fields["stop"] == ["X"]
    assert chat.stream
    assert chat.max_tokens == 2000


@pytest.mark.parametrize(
    ("thinking", "on", "shown"),
    [
        (None, False, "dropped"),
        ({"type": "disabled"}, False, "dropped"),
        ({"type": "adaptive"}, True, "shown"),
        ({"type": "enabled", "budget_tokens": 1024}, True, "shown"),
        ({"type": "adaptive", "display": "omitted"}, True, "omitted"),
    ],
)
def test_thinking_is_the_templates_mode(thinking: Any, on: bool, shown: str) -> None:
    request = read(thinking=thinking)
    assert request.chat.template_variables["enable_thinking"] is on
    assert request.chat.template_variables["thinking"] is on
    assert request.thinking == shown


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_a_json_schema_holds_the_answer(name: str) -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    value = {"format": form, "effort": "xhigh"} if name == "output_config" else form
    chat = read(**{name: value}).chat
    assert chat.structured is not None
    assert chat.structured.json_schema == '{"type":"object"}'
    if name == "output_config":
        assert chat.reasoning_effort == "xhigh"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": ...}, "model"),
        ({"max_tokens": ...}, "max_tokens"),
        ({"messages": ...}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [USER, {"role": "assistant", "content": []}, USER]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [USE]}]}, "messages[0].content[0].type"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"stop_sequences": "X"}, "stop_sequences"),
        ({"stop_sequences": ["x" * 300]}, "stop_sequences[0]"),
        ({"stop_sequences": [""] * 17}, "stop_sequences"),
        ({"system": [PNG]}, "system[0].type"),
        ({"tools": [{"name": "x"}]}, "tools[0].input_schema"),
        ({"tools": [{"name": "", "input_schema": {}}]}, "tools[0].name"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "required"}}, "tool_choice.type"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "no"}}, "tool_choice.name"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking.budget_tokens"),
        ({"thinking": {"type": "deep"}}, "thinking.type"),
        ({"output_config": {"effort": "huge"}}, "output_config.effort"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format.schema"),
        ({"container": "c"}, "container"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
    ],
)
def test_refusals_name_the_callers_field(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert error.param is not None
    assert error.param.startswith(param)
    assert f"'{param}" in error.message


def test_a_part_leads_back_to_its_block() -> None:
    turns = Turns().read(
        [
            USER,
            {"role": "assistant", "content": [USE]},
            {"role": "user", "content": [RESULT, {"type": "text", "text": "see"}, PNG]},
        ],
        "messages",
    )
    conversation = to_chat(None, turns)
    last = conversation.messages[-1]
    assert last["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
    ]
    error = InvalidRequest("Invalid 'messages[3].content[1].type': no.")
    error.param = "messages[3].content[1].type"
    own = conversation.in_callers_terms(error)
    assert own.param == "messages[2].content[2]"
    assert own.message == "Invalid 'messages[2].content[2]': no."


@pytest.mark.parametrize(
    ("source", "param"),
    [
        ({"type": "file", "file_id": "f"}, "messages[0].content[0].source.type"),
        ({"type": "url"}, "messages[0].content[0].source.url"),
        ({"type": "base64", "data": "aGk="}, "messages[0].content[0].source.media_type"),
    ],
)
def test_an_image_needs_a_whole_source(source: dict[str, str], param: str) -> None:
    error = refusal({"role": "user", "content": [{"type": "image", "source": source}]})
    assert error.param == param


@pytest.mark.parametrize(
    ("chat", "own"),
    [
        ("max_tokens", "max_tokens"),
        ("max_completion_tokens", "max_tokens"),
        ("stop", "stop_sequences"),
        ("stop[1]", "stop_sequences[1]"),
        ("response_format.json_schema.schema", "output_config.format.schema"),
        ("response_format", "output_config.format"),
        ("tools[2].function.parameters", "tools[2].input_schema"),
        ("tools[2].function.name", "tools[2].name"),
        ("tool_choice.function.name", "tool_choice.name"),
        ("messages", "messages"),
        ("messages[0].content", "system"),
        ("messages[1].content", "messages[0].content"),
        ("messages[9].content", "messages[9].content"),
    ],
)
def test_engine_refusals_are_named_likewise(chat: str, own: str) -> None:
    request = read(system="x")
    with pytest.raises(InvalidRequest) as caught, request.naming_own_fields():
        raise RequestRejected(f"Invalid '{chat}': no.", param=chat, code="c")
    assert caught.value.param == own
    assert caught.value.message == f"Invalid '{own}': no."
    assert caught.value.code == "c"


def test_unknown_fields_are_ignored_unless_strict() -> None:
    document = {"model": "m", "max_tokens": 1, "messages": [USER], "nonsense": 1}
    assert read_message_request(document).chat.max_tokens == 1
    with pytest.raises(InvalidRequest) as caught:
        read_message_request(document, strict=True)
    assert caught.value.param == "nonsense"


def test_counting_needs_no_max_tokens() -> None:
    document: dict[str, Any] = {"model": "m", "messages": [USER]}
    assert read_message_request(document, counting=True).chat.max_tokens is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ('{"a": 1}', {"a": 1}),
        ('{"a": "x"', {"a": "x"}),
        ('{"a": "x", "b": "unfin', {"a": "x"}),
        ('{"a": {"b": [1, 2], "c": tr', {"a": {"b": [1, 2]}}),
        ('{"a": [1, {"b": "\\"}", "c', {"a": [1, {"b": '"}'}]}),
        ('{"a', {}),
        ("nonsense", {}),
        ("[1]", {}),
    ],
)
def test_what_a_cut_off_call_said(text: str, value: dict[str, Any]) -> None:
    assert whole_object(text) == value
