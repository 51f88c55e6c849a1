"""Templates, context bounds and token texts, without a server."""

import json
from dataclasses import replace
from typing import Any

import pytest
from server_process import LIMIT, info_with

from engine.base import TokenLogprob
from engine.fake.tokenizer import CHAT_TEMPLATE, EOS_ID, VOCAB_SIZE, byte_tokenizer
from engine.models.bundled.heldout import items
from engine.models.bundled.template import CHAT_TEMPLATE as BUNDLED_TEMPLATE
from engine.models.bundled.template import render as render_as_trained
from gateway.chat import template as template_module
from gateway.chat.prompt import PromptBuilder
from gateway.chat.template import ChatTemplate
from gateway.chat.tokens import TokenTexts
from gateway.errors import InvalidRequest, PromptTimeout
from gateway.evaluation.asker import as_request
from gateway.protocol.chat_request import read_chat_request

TOOL = {"type": "function", "function": {"name": "f"}}
HERMES = CHAT_TEMPLATE + "{% if tools %}<tool_call>{{ tools | tojson }}</tool_call>{% endif %}"


async def build(builder: PromptBuilder | None = None, **fields: Any) -> Any:
    fields.setdefault("messages", [{"role": "user", "content": "hi"}])
    return await (builder or PromptBuilder(info_with())).build(read_chat_request(fields))


async def test_prompt_ids_are_the_rendered_template() -> None:
    prompt = await build()
    text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert prompt.ids == byte_tokenizer().encode(text, add_special_tokens=False).ids
    assert prompt.sampling.max_tokens == LIMIT - len(prompt.ids)


async def test_context_bounds() -> None:
    room = (await build()).sampling.max_tokens
    assert (await build(max_tokens=room)).sampling.max_tokens == room
    for name in ("max_tokens", "max_completion_tokens"):
        with pytest.raises(InvalidRequest) as caught:
            await build(**{name: room + 1})
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", name)
        assert f"you requested {LIMIT + 1} tokens" in caught.value.message
    for length in (LIMIT, 100_000):
        with pytest.raises(InvalidRequest) as caught:
            await build(messages=[{"role": "user", "content": "x" * length}])
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


async def test_bad_words_are_token_sequences() -> None:
    assert (await build(bad_words=["ab"])).sampling.bad_words == ((97, 98),)


@pytest.mark.parametrize(
    ("source", "fields", "param"),
    [
        (None, {}, "messages"),
        (CHAT_TEMPLATE, {"tools": [TOOL]}, "tools"),
        (CHAT_TEMPLATE, {"response_format": {"type": "json_object"}}, "response_format"),
        (CHAT_TEMPLATE, {"logprobs": True, "top_logprobs": 9}, "top_logprobs"),
        (CHAT_TEMPLATE, {"prompt_logprobs": 1}, "prompt_logprobs"),
        (CHAT_TEMPLATE, {"logit_bias": {"259": 1}}, "logit_bias"),
        (CHAT_TEMPLATE, {"chat_template_kwargs": {"bos_token": "x"}}, "chat_template_kwargs"),
        ("{{ raise_exception('roles must alternate') }}", {}, "messages"),
        ("{{ messages[0].content + 1 }}", {}, "messages"),
        ("{{ messages[0].nothing.further }}", {}, "messages"),
        ("{{ 1 / 0 }}", {}, "messages"),
        ("{{ ''.__class__.__mro__ }}", {}, "messages"),
        ("", {}, "messages"),
    ],
)
async def test_what_cannot_be_prompted(
    source: str | None, fields: dict[str, Any], param: str
) -> None:
    builder = PromptBuilder(info_with(source, prompt_logprobs=False, max_logprobs=5))
    with pytest.raises(InvalidRequest) as caught:
        await build(builder, **fields)
    assert caught.value.param == param
    assert "class" not in caught.value.message


async def test_structured_output_is_passed_where_the_engine_can() -> None:
    builder = PromptBuilder(info_with(structured_output=True))
    wanted = {
        "type": "json_schema",
        "json_schema": {"name": "x", "strict": True, "schema": {"type": "object"}},
    }
    prompt = await build(builder, response_format=wanted)
    assert json.loads(prompt.sampling.structured.json_schema) == {"type": "object"}


async def test_only_the_markers_among_special_tokens_stay_in_the_text() -> None:
    source = CHAT_TEMPLATE + "{% if tools %}[TOOL_CALLS]{{ tools | tojson }}{% endif %}"
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens(["[TOOL_CALLS]", "[THINK]", "[INST]"])
    marker = tokenizer.token_to_id("[TOOL_CALLS]")
    info = replace(info_with(source), tokenizer=tokenizer, vocab_size=400)
    builder = PromptBuilder(info)
    assert builder.formats.tool == "mistral"
    with_tools = await build(builder, tools=[TOOL])
    thinking = tokenizer.token_to_id("[THINK]")
    assert sorted(with_tools.sampling.shown_special_ids) == [marker, thinking]
    assert (await build(builder)).sampling.shown_special_ids == (thinking,)
    off = PromptBuilder(info, tool_parser="none", reasoning_parser="none")
    assert (await build(off)).sampling.shown_special_ids == ()
    with pytest.raises(ValueError, match="known: "):
        PromptBuilder(info, tool_parser="nonsense")


@pytest.mark.parametrize(
    ("fields", "switched"),
    [
        ({}, ""),
        ({"reasoning_effort": "none"}, "none,False"),
        ({"reasoning_effort": "low"}, "low,True"),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": False}},
            "low,False",
        ),
    ],
)
async def test_effort_reaches_the_template(fields: dict[str, Any], switched: str) -> None:
    source = "x{{ reasoning_effort }}{% if reasoning_effort %},{{ enable_thinking }}{% endif %}"
    ids = (await build(PromptBuilder(info_with(source)), **fields)).ids
    assert byte_tokenizer().decode(ids) == f"x{switched}"


async def test_forced_calls_need_an_engine_that_enforces() -> None:
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        with pytest.raises(InvalidRequest) as caught:
            await build(PromptBuilder(info_with(HERMES)), tools=[TOOL], tool_choice=choice)
        assert caught.value.param == "tool_choice"
    builder = PromptBuilder(info_with(HERMES, structured_output=True))
    prompt = await build(builder, tools=[TOOL], tool_choice="required")
    assert "<tool_call>" in prompt.sampling.structured.grammar
    assert prompt.constrained_by == "tool_choice"


def render(source: str, *messages: dict[str, Any], **options: Any) -> str:
    defaults: dict[str, Any] = {
        "tools": [],
        "add_generation_prompt": True,
        "continue_final_message": False,
        "variables": {},
    }
    return ChatTemplate(source, {"bos_token": "<s>"}).render(list(messages), **defaults | options)


def test_templates_have_what_transformers_gives_them() -> None:
    source = (
        "{{ bos_token }}{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{% generation %}{{ {'q': '<\"ü\">'} | tojson }}{% endgeneration %}{% endfor %}"
        "{{ thinking }}{{ strftime_now('%Y') | length }}"
    )
    message = {"role": "user", "content": "x"}
    shown = render(source, message, message, variables={"thinking": True})
    assert shown == '<s>{"q": "<\\"ü\\">"}True4'


def test_developer_messages_count_as_system_ones_where_unknown() -> None:
    message = {"role": "developer", "content": "x"}
    assert render("{{ messages[0].role }}", message) == "system"
    assert render("{{ messages[0].role }}{# developer #}", message) == "developer"


def test_continuing_the_final_message() -> None:
    messages = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "It is "}]
    shown = render(
        CHAT_TEMPLATE, *messages, add_generation_prompt=False, continue_final_message=True
    )
    assert shown.endswith("assistant\nIt is")


def test_rendering_is_bounded_in_time_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{{ i }}{% endfor %}{% endfor %}"
    message = {"role": "user", "content": "x"}
    monkeypatch.setattr(template_module, "RENDER_TIMEOUT_S", 0.2)
    with pytest.raises(PromptTimeout):
        render(loop, message)
    monkeypatch.setattr(template_module, "MAX_RENDERED_CHARS", 1000)
    with pytest.raises(InvalidRequest):
        render(loop, message)


def test_token_texts_of_a_byte_level_tokenizer() -> None:
    texts = TokenTexts(byte_tokenizer())
    data = "ü🦊 ".encode()
    ids = byte_tokenizer().encode("ü🦊 ", add_special_tokens=False).ids
    assert b"".join(texts.bytes_of(token) for token in ids) == data
    assert texts.text_of(ids[0]) == "\ufffd"
    assert texts.text_of(EOS_ID) == "<|im_end|>"
    assert texts.bytes_of(VOCAB_SIZE + 5) == b""
    [entry] = texts.openai([TokenLogprob(97, float("-inf"), ((97, -0.5), (98, -1.0)))])
    assert entry["logprob"] == -9999.0
    assert [top["token"] for top in entry["top_logprobs"]] == ["a", "b"]
    assert texts.vllm([None, TokenLogprob(99, -3.0, ((97, -0.5),))]) == [
        None,
        {
            "99": {"logprob": -3.0, "rank": None, "decoded_token": "c"},
            "97": {"logprob": -0.5, "rank": 1, "decoded_token": "a"},
        },
    ]


def test_prompts_of_the_bundled_model_are_those_of_its_training() -> None:
    template = ChatTemplate(BUNDLED_TEMPLATE, {})
    for item in items(per_skill=4):
        body: dict[str, Any] = {"messages": as_request(item.messages)}
        if item.tools:
            body["tools"] = item.tools
        request = read_chat_request(body)
        shown = template.render(
            request.messages,
            tools=request.tools,
            add_generation_prompt=True,
            continue_final_message=False,
            variables={},
        )
        assert shown == render_as_trained(item.messages, item.tools, add_generation_prompt=True)
