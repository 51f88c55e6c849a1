"""Thinking split from the answer: with the bundled model, and with scripted output."""

import json
from typing import Any

import httpx
import openai
import pytest
from server_process import MESSAGES, NewServer, ServerProcess

SUM: Any = [{"role": "user", "content": "What is 17 + 25?"}]
THOUGHT, ANSWER = "Let me see. A <b>tag</b>?", "The answer is 42."


@pytest.fixture
def bundled(shared_server: NewServer) -> openai.OpenAI:
    server = shared_server(ENGINE="onnx", MAX_NUM_SEQS="1")
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=120)


@pytest.fixture
def scripted(shared_server: NewServer) -> ServerProcess:
    """Always thinks aloud first."""
    text = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"
    return shared_server(options={"text": text}, REASONING_PARSER="qwen3")


def message(client: openai.OpenAI, **fields: Any) -> Any:
    answer = client.chat.completions.create(
        model="bundled", temperature=0, **{"messages": SUM, **fields}
    )
    return answer.choices[0].message, answer.usage


def streamed(url: str, **fields: Any) -> tuple[str, str, list[Any]]:
    """Reasoning, content and all chunks of a stream."""
    body = {"messages": SUM, "stream": True, "temperature": 0, **fields}
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=120) as reply:
        lines = [line for line in reply.iter_lines() if line.startswith("data: {")]
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    assert all(d.get("reasoning") == d.get("reasoning_content") for d in deltas)
    reasoning = "".join(delta.get("reasoning", "") for delta in deltas)
    return reasoning, "".join(delta.get("content", "") for delta in deltas), chunks


@pytest.mark.parametrize("stream", [False, True])
def test_thinking_is_asked_for_and_split_off(bundled: openai.OpenAI, stream: bool) -> None:
    if stream:
        url = str(bundled.base_url).removesuffix("/v1/")
        reasoning, content, _ = streamed(url, reasoning_effort="low")
    else:
        found, usage = message(bundled, reasoning_effort="low")
        reasoning, content = found.reasoning, found.content
        assert found.reasoning_content == reasoning
        tokens = usage.completion_tokens_details.reasoning_tokens
        assert 0 < tokens < usage.completion_tokens
    assert reasoning.strip()
    assert "17" in content
    assert not content[:1].isspace()
    assert "think>" not in reasoning + content


def test_no_thinking_unless_asked_for(bundled: openai.OpenAI) -> None:
    for fields in ({}, {"reasoning_effort": "none"}):
        found, usage = message(bundled, **fields)
        assert not hasattr(found, "reasoning")
        assert found.content
        assert usage.completion_tokens_details.reasoning_tokens == 0


def test_the_templates_own_variable_comes_first(bundled: openai.OpenAI) -> None:
    body = {"chat_template_kwargs": {"enable_thinking": True}}
    found, _ = message(bundled, reasoning_effort="none", extra_body=body)
    assert found.reasoning


@pytest.mark.parametrize(
    ("fields", "check"),
    [
        (
            {"extra_body": {"structured_outputs": {"choice": ["yes", "no"]}}},
            lambda text: text in ("yes", "no"),
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "Give me a JSON object with name Ada and age 36."}
                ],
                "response_format": {"type": "json_object"},
            },
            lambda text: isinstance(json.loads(text), dict),
        ),
    ],
    ids=["choice", "json_object"],
)
def test_a_format_holds_for_what_follows_the_thinking(
    bundled: openai.OpenAI, fields: Any, check: Any
) -> None:
    found, _ = message(bundled, reasoning_effort="high", max_tokens=300, **fields)
    assert found.reasoning.strip()
    assert check(found.content)


def test_forced_calls_follow_the_thinking(bundled: openai.OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "add", "strict": True}}
    found, _ = message(bundled, reasoning_effort="high", tools=[tool], tool_choice="required")
    assert found.reasoning
    assert found.tool_calls[0].function.name == "add"


def test_a_grammar_of_ones_own_and_thinking_exclude_each_other(bundled: openai.OpenAI) -> None:
    body = {"structured_outputs": {"grammar": 'start: "x"'}}
    with pytest.raises(openai.BadRequestError) as caught:
        message(bundled, reasoning_effort="high", extra_body=body)
    assert caught.value.param == "structured_outputs.grammar"


@pytest.mark.parametrize("n", [1, 3])
def test_streamed_and_whole_answers_agree(scripted: ServerProcess, n: int) -> None:
    client = openai.OpenAI(base_url=f"{scripted.url}/v1", api_key="x")
    answer = client.chat.completions.create(model="bundled", messages=MESSAGES, n=n)
    for choice in answer.choices:
        assert choice.message.reasoning.strip() == THOUGHT  # type: ignore[attr-defined]
        assert choice.message.content == ANSWER
    reasoning, content, _ = streamed(scripted.url, n=1)
    assert (reasoning.strip(), content) == (THOUGHT, ANSWER)


def test_reasoning_can_be_left_out(scripted: ServerProcess) -> None:
    reasoning, content, _ = streamed(scripted.url, include_reasoning=False)
    assert (reasoning, content) == ("", ANSWER)
    body = {"messages": MESSAGES, "include_reasoning": False}
    reply = httpx.post(f"{scripted.url}/v1/chat/completions", json=body, timeout=60).json()
    shown = reply["choices"][0]["message"]
    assert shown["content"] == ANSWER
    assert "reasoning" not in shown
    assert reply["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0


def test_cut_off_thinking_is_no_answer(scripted: ServerProcess) -> None:
    body = {"messages": MESSAGES, "max_tokens": 20}
    reply = httpx.post(f"{scripted.url}/v1/chat/completions", json=body, timeout=60).json()
    choice = reply["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"] == ""
    assert THOUGHT.startswith(choice["message"]["reasoning"].strip())


def test_usage_goes_along_with_every_chunk(scripted: ServerProcess) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = streamed(scripted.url, stream_options=options)[2]
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts)
    assert counts[0] <= counts[-1]
    assert chunks[-1]["choices"] == []


def test_token_ids_are_returned_on_demand(scripted: ServerProcess) -> None:
    asked = {"return_token_ids": True, "return_tokens_as_token_ids": True, "logprobs": True}
    body = {"messages": MESSAGES, **asked}
    reply = httpx.post(f"{scripted.url}/v1/chat/completions", json=body, timeout=60).json()
    assert len(reply["prompt_token_ids"]) == reply["usage"]["prompt_tokens"]
    choice = reply["choices"][0]
    assert len(choice["token_ids"]) == reply["usage"]["completion_tokens"]
    tokens = [entry["token"] for entry in choice["logprobs"]["content"]]
    assert tokens == [f"token_id:{token}" for token in choice["token_ids"]]
    chunks = streamed(scripted.url, **asked, messages=MESSAGES)[2]
    assert chunks[0]["prompt_token_ids"] == reply["prompt_token_ids"]
    parts = [choice.get("token_ids", []) for chunk in chunks for choice in chunk["choices"]]
    assert [token for part in parts for token in part] == choice["token_ids"]


def test_thinking_of_earlier_turns_is_taken_under_both_names(scripted: ServerProcess) -> None:
    for name in ("reasoning", "reasoning_content"):
        messages = [*MESSAGES, {"role": "assistant", "content": "a", name: "b"}, *MESSAGES]
        reply = httpx.post(
            f"{scripted.url}/v1/chat/completions", json={"messages": messages}, timeout=60
        )
        assert reply.status_code == 200, reply.text
