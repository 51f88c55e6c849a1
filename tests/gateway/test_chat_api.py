"""Chat completions on a real server, through the official SDK and curl."""

import json
import subprocess
from typing import Any

import httpx
import openai
import pytest
from server_process import MESSAGES, SENTENCE, ServerProcess


def test_answer_in_one_piece(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="bundled", messages=MESSAGES)
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.content == SENTENCE
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    usage = answer.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens >= len(SENTENCE.encode())


def test_streamed_answer_equals_the_whole_one(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="bundled",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == SENTENCE
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len({c.id for c in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens_details is not None
    assert all(c.usage is None for c in chunks[:-1])


def test_streaming_helper_of_the_sdk(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="bundled", messages=MESSAGES, n=2) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [SENTENCE, SENTENCE]


async def test_async_client(server: ServerProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="x") as client:
        answer = await client.chat.completions.create(model="bundled", messages=MESSAGES)
        assert answer.choices[0].message.content == SENTENCE
        stream = await client.chat.completions.create(
            model="bundled", messages=MESSAGES, stream=True
        )
        parts = [chunk.choices[0].delta.content or "" async for chunk in stream]
        assert "".join(parts) == SENTENCE


def test_length_stop_and_choices(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="bundled", messages=MESSAGES, n=3, max_tokens=5, temperature=0
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 15
    stopped = client.chat.completions.create(model="bundled", messages=MESSAGES, stop=["quick"])
    assert stopped.choices[0].message.content == SENTENCE.partition("quick")[0]
    assert stopped.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_cover_every_byte(client: openai.OpenAI, stream: bool) -> None:
    answer: Any = client.chat.completions.create(
        model="bundled", messages=MESSAGES, logprobs=True, top_logprobs=3, stream=stream
    )
    chunks = list(answer) if stream else [answer]
    entries = [
        entry
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs
        for entry in choice.logprobs.content
    ]
    shown = bytes(byte for entry in entries for byte in entry.bytes)
    assert shown.startswith(SENTENCE.encode())
    assert all(len(entry.top_logprobs) == 3 for entry in entries)
    assert all(entry.logprob <= 0 for entry in entries)


def test_prompt_logprobs_and_echo(server: ServerProcess) -> None:
    messages = [*MESSAGES, {"role": "assistant", "content": "As I said: "}]
    answer = post(
        server,
        {
            "messages": messages,
            "prompt_logprobs": 2,
            "echo": True,
            "continue_final_message": True,
        },
    ).json()
    assert answer["choices"][0]["message"]["content"] == "As I said: " + SENTENCE
    assert answer["prompt_logprobs"][0] is None
    assert len(answer["prompt_logprobs"]) == answer["usage"]["prompt_tokens"]


def test_cached_tokens_are_reported(server: ServerProcess) -> None:
    messages = [{"role": "user", "content": "a long enough prefix to be cached " * 4}]
    post(server, {"messages": messages})
    second = post(server, {"messages": messages}).json()["usage"]
    assert second["prompt_tokens_details"]["cached_tokens"] > 0
    salted = post(server, {"messages": messages, "cache_salt": "other"}).json()["usage"]
    assert salted["prompt_tokens_details"]["cached_tokens"] == 0


def test_models(client: openai.OpenAI, server: ServerProcess) -> None:
    assert [model.id for model in client.models.list()] == ["tiny-chat", "bundled"]
    assert client.models.retrieve("bundled").id == "bundled"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("no/such model")
    assert caught.value.code == "model_not_found"
    assert httpx.get(f"{server.url}/v1/models/").status_code == 404


def test_unknown_model(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-9", messages=MESSAGES)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_statuses_also_for_streams(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="bundled", messages=MESSAGES, temperature=3, stream=stream
        )
    assert caught.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="bundled", messages=MESSAGES, max_tokens=100_000, stream=stream
        )
    assert caught.value.code == "context_length_exceeded"
    assert caught.value.param == "max_tokens"
    assert "maximum context length is 8192 tokens" in str(caught.value)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(
            model="bundled", messages=[{"role": "user", "content": "x" * 9000}], stream=stream
        )
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


def test_what_the_engine_cannot_do_is_refused(server: ServerProcess) -> None:
    tool = {"type": "function", "function": {"name": "f"}}
    for extra, param in (
        ({"tools": [tool]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
    ):
        error = post(server, {"messages": MESSAGES, **extra}, status=400).json()["error"]
        assert error["param"] == param


def test_unknown_routes_methods_and_types(server: ServerProcess) -> None:
    with httpx.Client(base_url=server.url) as http:
        for reply, status, code in (
            (http.get("/nope"), 404, "unknown_url"),
            (http.post("/v1/completionz", json={}), 404, "unknown_url"),
            (http.get("/v1/chat/completions/"), 404, "unknown_url"),
            (http.get("/v1/chat/completions"), 405, "method_not_supported"),
            (http.options("/v1/chat/completions"), 405, "method_not_supported"),
            (http.delete("/v1/models"), 405, "method_not_supported"),
            (http.patch("/health"), 405, "method_not_supported"),
            (http.post("/v1/chat/completions", data={"a": "b"}), 415, "unsupported_media_type"),
            (http.post("/v1/chat/completions", content=b"{}"), 415, "unsupported_media_type"),
        ):
            assert reply.status_code == status, reply.text
            assert reply.json()["error"]["code"] == code
            assert reply.json()["error"]["type"] == "invalid_request_error"
            assert ("allow" in reply.headers) == (status == 405)
        packed = {"content-encoding": "gzip", "content-type": "application/json"}
        reply = http.post("/v1/chat/completions", content=b"x", headers=packed)
        assert reply.status_code == 415


def test_response_headers(server: ServerProcess) -> None:
    reply = post(server, {"messages": MESSAGES}, headers={"x-request-id": "my-id.1"})
    assert reply.headers["x-request-id"] == "my-id.1"
    assert int(reply.headers["openai-processing-ms"]) >= 0
    assert "server" not in reply.headers
    odd = post(server, {"messages": MESSAGES}, headers={"x-request-id": "a b\tc{}"})
    assert odd.headers["x-request-id"].startswith("req_")
    error = post(server, {}, status=400)
    assert error.headers["x-should-retry"] == "false"
    assert error.headers["x-request-id"].startswith("req_")


def test_no_cross_origin_access(server: ServerProcess) -> None:
    reply = httpx.get(f"{server.url}/v1/models", headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in reply.headers


def test_openapi_describes_the_hot_route(server: ServerProcess) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    operation = document["paths"]["/v1/chat/completions"]["post"]
    assert set(operation["responses"]) >= {"200", "400", "401", "404", "413", "503"}
    schema = document["components"]["schemas"]["ChatCompletionRequest"]
    assert schema["properties"]["temperature"]["anyOf"][0]["maximum"] == 2
    assert httpx.get(f"{server.url}/docs").status_code == 200


def test_the_printed_curl_line_works_as_pasted(server: ServerProcess) -> None:
    line = next(x for x in server.out.read_text().splitlines() if x.startswith("curl "))
    shown = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60).stdout
    events = [event for event in shown.split("\n\n") if event]
    assert events[-1] == "data: [DONE]"
    texts = [
        json.loads(event.removeprefix("data: "))["choices"][0]["delta"].get("content") or ""
        for event in events[:-1]
    ]
    assert "".join(texts) == SENTENCE


def post(
    server: ServerProcess,
    body: dict[str, Any],
    *,
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
    assert reply.status_code == status, reply.text
    return reply
