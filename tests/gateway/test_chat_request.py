"""Every field of a chat request: what is accepted, and errors that name the field."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.protocol.chat_parameters import CHAT
from gateway.protocol.chat_request import (
    ChatRequest,
    check_token_ids,
    read_chat_request,
    sampling_params,
)

MESSAGES = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def read(*, strict: bool = False, **fields: Any) -> ChatRequest:
    return read_chat_request({"messages": MESSAGES, **copy.deepcopy(fields)}, strict=strict)


def refusal(**fields: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [1]}, "messages[0]"),
        ({"messages": MESSAGES * 3000}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role"),
        ({"messages": [*MESSAGES, {"role": "user"}]}, "messages[1].content"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [3]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": {}, "text": ""}]}]},
            "messages[0].content[0].type",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "name": 3}]}, "messages[0].name"),
        (
            {"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]},
            "messages[0].tool_calls",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{**CALL, "function": {}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "["}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {
                "messages": [
                    {
                        "role": "assistant",
                        "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "[1]"}}],
                    }
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"model": 1}, "model"),
        ({"model": ""}, "model"),
        ({"stream": 1}, "stream"),
        ({"stream": "true"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": True}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"n": 0}, "n"),
        ({"n": -1}, "n"),
        ({"n": 17}, "n"),
        ({"n": True}, "n"),
        ({"n": 1.5}, "n"),
        ({"n": "1"}, "n"),
        ({"n": 10**30}, "n"),
        ({"logprobs": 1}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
        ({"prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 1e30}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"stop": 3}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a", None]}, "stop[1]"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": "a" * 257}, "stop"),
        ({"stop_token_ids": 3}, "stop_token_ids"),
        ({"stop_token_ids": [-1]}, "stop_token_ids[0]"),
        ({"stop_token_ids": [True]}, "stop_token_ids[0]"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"min_p": 1.1}, "min_p"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": -2.5}, "frequency_penalty"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"repetition_penalty": -1}, "repetition_penalty"),
        ({"repetition_penalty": 5e-324}, "repetition_penalty"),
        ({"logit_bias": []}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5"),
        ({"logit_bias": {"5": True}}, "logit_bias.5"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "logit_bias"),
        ({"bad_words": "x"}, "bad_words"),
        ({"bad_words": [""]}, "bad_words[0]"),
        ({"allowed_token_ids": []}, "allowed_token_ids"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"seed": True}, "seed"),
        ({"tools": []}, "tools"),
        ({"tools": [{}]}, "tools[0].type"),
        ({"tools": [{"type": "code", "function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        ({"tools": [TOOL] * 129}, "tools"),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": [TOOL], "tool_choice": {"type": "x"}}, "tool_choice.type"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
            "tool_choice",
        ),
        ({"tools": [TOOL], "tool_choice": 3}, "tool_choice"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        ({"structured_outputs": {}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"choice": [1]}}, "structured_outputs.choice[0]"),
        (
            {"structured_outputs": {"whitespace_pattern": "x"}},
            "structured_outputs.whitespace_pattern",
        ),
        (
            {"structured_outputs": {"regex": "a"}, "response_format": {"type": "json_object"}},
            "structured_outputs",
        ),
        ({"reasoning_effort": "much"}, "reasoning_effort"),
        ({"include_reasoning": 1}, "include_reasoning"),
        ({"return_token_ids": "yes"}, "return_token_ids"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "continue_final_message"),
        ({"chat_template_kwargs": 3}, "chat_template_kwargs"),
        ({"cache_salt": ""}, "cache_salt"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"best_of": 2}, "best_of"),
        ({"best_of": True}, "best_of"),
        ({"priority": 1}, "priority"),
        ({"chat_template": "{{ x }}"}, "chat_template"),
        ({"guided_json": 3}, "guided_json"),
        ({"guided_regex": 3}, "guided_regex"),
        ({"guided_choice": ["a", 2]}, "guided_choice[1]"),
    ],
)
def test_errors_name_the_field(fields: dict[str, Any], param: str) -> None:
    error = refusal(**fields)
    assert error.param == param
    assert param in error.message


@pytest.mark.parametrize("name", sorted(CHAT))
def test_null_counts_as_absent(name: str) -> None:
    if name != "messages":
        assert read(**{name: None}) == read()


@pytest.mark.parametrize("name", [p.name for p in CHAT.values() if p.treatment == "ignored"])
@pytest.mark.parametrize("value", [1, "x", {"a": [1]}, True])
def test_ignored_fields_may_hold_anything(name: str, value: Any) -> None:
    assert read(**{name: value}) == read()


@pytest.mark.parametrize("parameter", CHAT.values(), ids=lambda p: p.name)
def test_harmless_values_of_refused_fields_are_accepted(parameter: Any) -> None:
    for value in parameter.harmless:
        assert read(**{parameter.name: value}) == read()


def test_unknown_fields_are_ignored_unless_strict() -> None:
    assert read(temprature=1) == read()
    with pytest.raises(InvalidRequest) as caught:
        read(strict=True, temprature=1)
    assert (caught.value.param, caught.value.code) == ("temprature", "unknown_parameter")


def test_whole_floats_count_as_integers() -> None:
    assert read(n=2.0).n == 2


def test_text_parts_become_one_string() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = read(messages=[{"role": "user", "content": parts}])
    assert request.messages == [{"role": "user", "content": "a\nb"}]


def test_tool_calls_reach_the_template_as_objects() -> None:
    call = {**CALL, "function": {"name": "f", "arguments": '{"x": 1}'}}
    request = read(
        messages=[
            *MESSAGES,
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ]
    )
    assert request.messages[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}
    assert request.messages[1]["content"] == ""


def test_tool_choice_none_hides_the_tools() -> None:
    assert read(tools=[TOOL]).tools == [TOOL]
    assert read(tools=[TOOL], tool_choice="none").tools == []


def test_older_names_of_constraints_mean_the_same() -> None:
    for kind, value in (("regex", "a+"), ("choice", ["a", "b"]), ("grammar", 'start: "x"')):
        older = read(**{f"guided_{kind}": value})
        assert older.structured == read(structured_outputs={kind: value}).structured
        assert older.structured is not None


def test_every_sampling_field_reaches_the_engine() -> None:
    request = read(
        n=2,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        repetition_penalty=1.1,
        logit_bias={"5": -100},
        allowed_token_ids=[1, 2],
        seed=-7,
        stop="END",
        include_stop_str_in_output=True,
        stop_token_ids=[9],
        min_tokens=3,
        ignore_eos=True,
        skip_special_tokens=False,
        logprobs=True,
        top_logprobs=4,
        prompt_logprobs=2,
        response_format={"type": "json_object"},
    )
    params = sampling_params(request, max_tokens=50, bad_words=((3, 4),), defaults={})
    assert params.structured is not None
    assert params.structured.json_object
    shown = {
        name: getattr(params, name)
        for name in params.__dataclass_fields__
        if name not in ("structured", "shown_special_ids")
    }
    assert shown == {
        "max_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "repetition_penalty": 1.1,
        "logit_bias": {5: -100.0},
        "bad_words": ((3, 4),),
        "allowed_token_ids": (1, 2),
        "seed": 2**63 - 7,
        "stop": ("END",),
        "include_stop_str_in_output": True,
        "stop_token_ids": (9,),
        "min_tokens": 3,
        "ignore_eos": True,
        "skip_special_tokens": False,
        "n": 2,
        "logprobs": 4,
        "prompt_logprobs": 2,
    }


def test_off_switches_mean_off() -> None:
    params = sampling_params(read(top_k=-1, top_p=0), max_tokens=1, bad_words=(), defaults={})
    assert params.top_k == 0
    assert 0 < params.top_p < 0.001


@pytest.mark.parametrize(
    "fields",
    [{"logit_bias": {"300": 1}}, {"stop_token_ids": [300]}, {"allowed_token_ids": [1, 300]}],
)
def test_token_ids_beyond_the_vocabulary_are_refused(fields: dict[str, Any]) -> None:
    check_token_ids(read(**fields), vocab_size=301)
    with pytest.raises(InvalidRequest) as caught:
        check_token_ids(read(**fields), vocab_size=300)
    assert caught.value.param == next(iter(fields))


@pytest.mark.parametrize("key", ["", "-1", "a", "1.0", "١"])
def test_logit_bias_keys_are_token_ids(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_token_ids(read(logit_bias={key: 1}), vocab_size=300)
    assert caught.value.param == "logit_bias"


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["user", "assistant", "tool", "text", "function", "auto", "json_schema"])
)
KEYS = st.text(max_size=8) | st.sampled_from(
    ["role", "content", "type", "text", "function", "name", "arguments", "id", "tool_calls"]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(sorted(CHAT)) | KEYS, VALUES, max_size=6),
    VALUES,
    st.booleans(),
)
def test_any_document_gives_a_request_or_a_refusal(
    document: dict[str, Any], messages: Any, usual: bool
) -> None:
    document["messages"] = MESSAGES if usual else messages
    try:
        request = read_chat_request(document)
        check_token_ids(request, 100)
        sampling_params(request, max_tokens=request.max_tokens or 10, bad_words=(), defaults={})
    except InvalidRequest as error:
        named = error.param is not None and len(error.message) < 2000
        assert named, error.message  # noqa: PT017 - either outcome is fine


def test_a_models_own_sampling_fills_in_what_the_request_leaves_out() -> None:
    defaults = {"temperature": 0.0, "top_k": 20, "top_p": 0.8}
    made = sampling_params(read(), max_tokens=1, bad_words=(), defaults=defaults)
    assert (made.temperature, made.top_k, made.top_p, made.min_p) == (0.0, 20, 0.8, 0.0)
    asked = read(temperature=0.7, top_k=-1)
    made = sampling_params(asked, max_tokens=1, bad_words=(), defaults=defaults)
    assert (made.temperature, made.top_k, made.top_p) == (0.7, 0, 0.8)
