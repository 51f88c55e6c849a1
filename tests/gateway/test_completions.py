"""Completions on a real server with the bundled model, through the official SDK."""

import contextlib
import json
import socket
from typing import Any

import httpx
import openai
import pytest
from server_process import MESSAGES, PATIENCE_S, SENTENCE, NewServer, ServerProcess

PROMPTS = ["The sky is", "Grüße 🦊, my", "One two three"]


@pytest.fixture(scope="module")
def bundled(shared_server: NewServer) -> ServerProcess:
    return shared_server(ENGINE="onnx", MAX_NUM_SEQS="4")


@pytest.fixture(scope="module")
def sdk(bundled: ServerProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{bundled.url}/v1", api_key="x", max_retries=0)


def post(
    server: ServerProcess, body: dict[str, Any], path: str = "/v1/completions", status: int = 200
) -> Any:
    reply = httpx.post(f"{server.url}{path}", json=body, timeout=PATIENCE_S)
    assert reply.status_code == status, reply.text
    return reply.json()


def refusal(server: ServerProcess, body: dict[str, Any], status: int = 400) -> dict[str, Any]:
    error: dict[str, Any] = post(server, body, status=status)["error"]
    return error


def test_whole_and_streamed_completions_agree(sdk: openai.OpenAI) -> None:
    asked: dict[str, Any] = {
        "model": "bundled",
        "prompt": "The sky is",
        "temperature": 0,
        "extra_body": {"ignore_eos": True},
    }
    whole = sdk.completions.create(**asked)
    assert (whole.object, whole.model) == ("text_completion", "tiny-chat")
    assert whole.id.startswith("cmpl-")
    assert whole.choices[0].text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 16
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 16
    options = {"include_usage": True}
    chunks = list(sdk.completions.create(**asked, stream=True, stream_options=options))
    assert "".join(c.choices[0].text for c in chunks if c.choices) == whole.choices[0].text
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert {c.object for c in chunks} == {"text_completion"}
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 16
    assert all(chunk.usage is None for chunk in chunks[:-1])


async def test_async_client(bundled: ServerProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{bundled.url}/v1", api_key="x") as client:
        stream = await client.completions.create(
            model="bundled", prompt=PROMPTS, stream=True, max_tokens=4
        )
        seen = {chunk.choices[0].index async for chunk in stream}
    assert seen == {0, 1, 2}


def test_usage_so_far_on_every_chunk(sdk: openai.OpenAI) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    chunks = list(
        sdk.completions.create(
            model="bundled", prompt="The sky", max_tokens=5, stream=True, stream_options=options
        )
    )
    counts = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]
    assert len(counts) == len(chunks)
    assert counts == sorted(counts)
    assert counts[-1] == 5


def test_token_ids_are_a_prompt_as_good_as_text(bundled: ServerProcess) -> None:
    asked = {"temperature": 0, "max_tokens": 8, "echo": True, "logprobs": 1}
    tokens = [post(bundled, {"prompt": text}, "/tokenize")["tokens"] for text in PROMPTS]
    of_text = post(bundled, {"prompt": PROMPTS, **asked})["choices"]
    of_ids = post(bundled, {"prompt": tokens, **asked})["choices"]
    one = post(bundled, {"prompt": tokens[1], **asked})["choices"][0]
    for index, text in enumerate(PROMPTS):
        assert of_text[index]["index"] == index
        assert of_text[index]["text"] == of_ids[index]["text"]
        assert of_text[index]["text"].startswith(text)
        assert of_text[index]["logprobs"]["tokens"] == of_ids[index]["logprobs"]["tokens"]
        assert of_text[index]["logprobs"]["text_offset"] == of_ids[index]["logprobs"]["text_offset"]
    assert one["text"] == of_text[1]["text"]


def check_arrays(choice: dict[str, Any]) -> None:
    """The arrays are parallel, and each token stands in the text where its offset says."""
    arrays, text = choice["logprobs"], choice["text"]
    assert len({len(array) for array in arrays.values()}) == 1
    offsets = arrays["text_offset"]
    assert offsets[0] == 0
    assert offsets == sorted(offsets)
    ends = [*offsets[1:], len(text)]
    spelled = ""
    open_character = False
    for token, begin, end in zip(arrays["tokens"], offsets, ends, strict=True):
        piece = text[begin:end]
        if token.startswith("bytes:"):
            # Several tokens make one character; the last of them reaches its end.
            open_character = True
        elif token != "<|im_end|>":
            # A character that was never finished shows where its next token begins.
            assert piece == token or (open_character and piece.lstrip("\ufffd") == token)
            open_character = False
        spelled += piece
    assert spelled == text


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("prompt", PROMPTS)
def test_offsets_add_up_to_the_text(bundled: ServerProcess, prompt: str, echo: bool) -> None:
    asked = {"prompt": prompt, "max_tokens": 12, "temperature": 0, "logprobs": 3, "echo": echo}
    (choice,) = post(bundled, asked)["choices"]
    check_arrays(choice)
    arrays = choice["logprobs"]
    assert choice["text"].startswith(prompt) == echo
    assert (arrays["token_logprobs"][0] is None) == echo
    for token, value, top in list(
        zip(arrays["tokens"], arrays["token_logprobs"], arrays["top_logprobs"], strict=True)
    )[echo:]:
        assert value <= 0
        assert 3 <= len(top) <= 4
        assert top[token] == value
    streamed = joined(bundled, asked)[0]
    assert streamed["text"] == choice["text"]
    assert streamed["logprobs"]["tokens"] == arrays["tokens"]
    assert streamed["logprobs"]["text_offset"] == arrays["text_offset"]


def joined(server: ServerProcess, asked: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The choices of a streamed answer, put together."""
    found: dict[int, dict[str, Any]] = {}
    body = {**asked, "stream": True}
    with httpx.stream(
        "POST", f"{server.url}/v1/completions", json=body, timeout=PATIENCE_S
    ) as reply:
        assert reply.status_code == 200
        events = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert events[-1] == "[DONE]"
    for event in events[:-1]:
        for part in json.loads(event)["choices"]:
            whole = found.setdefault(part["index"], {"text": "", "logprobs": {}, "ids": []})
            assert "finish_reason" not in whole
            whole["text"] += part["text"]
            whole["ids"] += part.get("token_ids", [])
            if "prompt_token_ids" in part:
                assert "prompt_token_ids" not in whole
                whole["prompt_token_ids"] = part["prompt_token_ids"]
            for name, array in (part["logprobs"] or {}).items():
                whole["logprobs"].setdefault(name, []).extend(array)
            if part["finish_reason"] is not None:
                whole["finish_reason"] = part["finish_reason"]
    return found


def test_logprobs_agree_with_chat(bundled: ServerProcess) -> None:
    asked = {"temperature": 0, "max_tokens": 12}
    prompt = post(bundled, {"messages": MESSAGES}, "/tokenize")["tokens"]
    chat = post(
        bundled,
        {"messages": MESSAGES, "logprobs": True, "top_logprobs": 4, **asked},
        "/v1/chat/completions",
    )
    (choice,) = post(bundled, {"prompt": prompt, "logprobs": 4, **asked})["choices"]
    assert chat["usage"]["prompt_tokens"] == len(prompt)
    shown, entries = choice["logprobs"], chat["choices"][0]["logprobs"]["content"]
    assert shown["tokens"] == [entry["token"] for entry in entries]
    assert shown["token_logprobs"] == pytest.approx([e["logprob"] for e in entries], abs=0.05)
    for top, entry in zip(shown["top_logprobs"], entries, strict=True):
        others = {other["token"] for other in entry["top_logprobs"]}
        assert len(others & set(top)) >= 3  # a tie at the end may fall either way
    check_arrays(choice)


def test_scoring_generates_nothing(bundled: ServerProcess) -> None:
    text = "The capital of France is Paris."
    for stream in (False, True):
        asked = {"prompt": text, "max_tokens": 0, "echo": True, "logprobs": 1}
        choice = joined(bundled, asked)[0] if stream else post(bundled, asked)["choices"][0]
        assert (choice["text"], choice["finish_reason"]) == (text, "length")
        check_arrays(choice)
    answer = post(bundled, {"prompt": text, "max_tokens": 0, "prompt_logprobs": 2})
    assert answer["usage"]["completion_tokens"] == 0
    (choice,) = answer["choices"]
    assert choice["text"] == ""
    assert choice["prompt_logprobs"][0] is None
    assert len(choice["prompt_logprobs"]) == answer["usage"]["prompt_tokens"]
    likely, unlikely = (
        sum(
            post(bundled, {**asked, "prompt": [text]})["choices"][0]["logprobs"]["token_logprobs"][
                1:
            ]
        )
        for text in ("The capital of France is Paris.", "The capital of France is xq]7.")
    )
    assert likely > unlikely


def test_prompts_and_choices_are_numbered_through(bundled: ServerProcess) -> None:
    asked = {
        "prompt": PROMPTS * 3,
        "n": 2,
        "best_of": 2,
        "max_tokens": 6,
        "seed": 7,
        "return_token_ids": True,
        "stop": ["."],
    }
    answer = post(bundled, asked)
    choices = answer["choices"]
    assert [choice["index"] for choice in choices] == list(range(18))
    tokens = [post(bundled, {"prompt": text}, "/tokenize")["tokens"] for text in PROMPTS]
    for index, choice in enumerate(choices):
        assert choice["prompt_token_ids"] == tokens[index // 2 % 3]
    assert answer["usage"]["prompt_tokens"] == 3 * sum(map(len, tokens))
    made = sum(len(choice["token_ids"]) for choice in choices)
    assert answer["usage"]["completion_tokens"] == made
    streamed = joined(bundled, asked)
    assert sorted(streamed) == list(range(18))
    for index, choice in enumerate(choices):
        assert streamed[index]["text"] == choice["text"]
        assert streamed[index]["ids"] == choice["token_ids"]
        assert streamed[index]["prompt_token_ids"] == choice["prompt_token_ids"]
        assert streamed[index]["finish_reason"] == choice["finish_reason"]
    # Two prompts of one text, with one seed: the same completions.
    assert [c["text"] for c in choices[:6]] == [c["text"] for c in choices[6:12]]


def test_constraints_and_sampling_fields_are_those_of_chat(bundled: ServerProcess) -> None:
    asked = {"prompt": ["Is water wet?", "Is fire cold?"], "max_tokens": 8}
    for extra in (
        {"structured_outputs": {"choice": ["yes", "no"]}},
        {"guided_choice": ["yes", "no"]},
    ):
        for choice in post(bundled, {**asked, **extra})["choices"]:
            assert choice["text"] in ("yes", "no")
            assert choice["finish_reason"] == "stop"
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    schema["additionalProperties"] = False
    (choice,) = post(bundled, {"prompt": "JSON:", "max_tokens": 60, "response_format": form})[
        "choices"
    ]
    assert set(json.loads(choice["text"])) == {"a"}
    (only,) = post(bundled, {"prompt": "x", "allowed_token_ids": [65], "max_tokens": 4})["choices"]
    assert only["text"] == post(bundled, {"tokens": [65] * 4}, "/detokenize")["prompt"]
    spelled = post(
        bundled,
        {
            "prompt": "x",
            "max_tokens": 2,
            "logprobs": 0,
            "return_tokens_as_token_ids": True,
            "allowed_token_ids": [65],
        },
    )["choices"][0]["logprobs"]
    assert spelled["tokens"] == ["token_id:65"] * 2
    assert [list(top) for top in spelled["top_logprobs"]] == [["token_id:65"]] * 2


def test_stop_strings_and_reasons(shared_server: NewServer) -> None:
    server = shared_server(options={"text": SENTENCE})
    asked = {"prompt": "x", "max_tokens": 60, "stop": ["quick"], "logprobs": 0}
    for choice in (post(server, asked)["choices"][0], joined(server, asked)[0]):
        assert choice["text"] == SENTENCE.partition("quick")[0]
        assert choice["finish_reason"] == "stop"
    (whole,) = post(server, asked)["choices"]
    assert whole["stop_reason"] == "quick"
    # Offsets go on through the text that the stop string cut away.
    assert whole["logprobs"]["text_offset"][-1] == len(whole["text"]) + len("quick") - 1


@pytest.mark.parametrize("stream", [False, True])
def test_bad_input_is_a_status(bundled: ServerProcess, stream: bool) -> None:
    for body, param, code in (
        ({}, "prompt", "missing_required_parameter"),
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": ""}, "prompt", "invalid_value"),
        ({"prompt": ["a", 3]}, "prompt[1]", "invalid_type"),
        ({"prompt": [1, 999_999]}, "prompt[1]", "invalid_value"),
        ({"prompt": [[1], [2, 999_999]]}, "prompt[1][1]", "invalid_value"),
        ({"prompt": "a b " * 3000}, "prompt", "context_length_exceeded"),
        ({"prompt": ["a", "a b " * 3000]}, "prompt[1]", "context_length_exceeded"),
        ({"prompt": "a", "max_tokens": 2048}, "max_tokens", "context_length_exceeded"),
        ({"prompt": ["a"] * 1025}, "prompt", "invalid_value"),
        ({"prompt": ["a"] * 1024, "max_tokens": 2047, "n": 2}, "prompt", "invalid_value"),
        ({"prompt": "a", "suffix": "b"}, "suffix", "unsupported_parameter"),
        ({"prompt": "a", "best_of": 3}, "best_of", "unsupported_parameter"),
        ({"prompt": "a", "logprobs": 21}, "logprobs", "invalid_value"),
        ({"prompt": "a", "structured_outputs": {"regex": "("}}, None, None),
        ({"prompt": "a", "guided_regex": "("}, "guided_regex", None),
    ):
        error = refusal(bundled, {**body, "stream": stream})
        if param is not None:
            assert error["param"] == param, body
        if code is not None:
            assert error["code"] == code, body
    missing = refusal(bundled, {"prompt": "a", "model": "gpt-9", "stream": stream}, 404)
    assert missing["code"] == "model_not_found"


def test_only_post(bundled: ServerProcess) -> None:
    assert httpx.get(f"{bundled.url}/v1/completions").status_code == 405
    text = httpx.post(f"{bundled.url}/v1/completions", content=b"{}", timeout=PATIENCE_S)
    assert text.status_code == 415


def test_the_document_describes_every_route(bundled: ServerProcess) -> None:
    document = httpx.get(f"{bundled.url}/openapi.json").json()
    for path in ("/v1/completions", "/tokenize", "/detokenize", "/predict"):
        assert "400" in document["paths"][path]["post"]["responses"]
    schema = document["components"]["schemas"]["CompletionRequest"]
    assert schema["required"] == ["prompt"]
    assert len(schema["properties"]["prompt"]["anyOf"]) == 4


def engine_load(server: ServerProcess) -> float:
    samples = server.metrics()
    return samples["vllm:num_requests_running"] + samples["vllm:num_requests_waiting"]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("phase", ["ttft_s", "itl_s"])
def test_leaving_frees_every_prompt(shared_server: NewServer, phase: str, stream: bool) -> None:
    server = shared_server(options={phase: 10_000}, MAX_NUM_SEQS="4")
    body = json.dumps({"prompt": ["a"] * 9, "stream": stream, "max_tokens": 50}).encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as sock:
        sock.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        server.wait_for(lambda: engine_load(server) == 4, "four prompts with the engine")
    server.wait_for(lambda: engine_load(server) == 0, "all of them to be gone")
    server.wait_for(lambda: server.metric("gateway_requests_in_flight") == 0, "the request")


def test_one_call_does_not_fill_the_queue(shared_server: NewServer) -> None:
    """More prompts than the engine takes at all are worked off one after another."""
    server = shared_server(options={"text": SENTENCE}, MAX_NUM_SEQS="2", MAX_QUEUE="0")
    choices = post(server, {"prompt": ["a"] * 20, "max_tokens": 60})["choices"]
    assert {choice["text"] for choice in choices} == {SENTENCE}
    assert {
        choice["text"]
        for choice in joined(server, {"prompt": ["a"] * 20, "max_tokens": 60}).values()
    } == {SENTENCE}


def test_an_overloaded_engine_is_a_503(shared_server: NewServer) -> None:
    server = shared_server(options={"overloaded": True})
    for stream in (False, True):
        error = refusal(server, {"prompt": ["a", "b"], "stream": stream}, 503)
        assert error["code"] == "server_is_overloaded"


def test_a_dying_engine_ends_the_stream_with_an_error(new_server: NewServer) -> None:
    server = new_server(options={"itl_s": 0.01, "die_after_tokens": 40}).wait_ready()
    body = {"prompt": ["a", "b", "c"], "max_tokens": 100, "stream": True}
    url = f"{server.url}/v1/completions"
    with contextlib.ExitStack() as stack:
        reply = stack.enter_context(httpx.stream("POST", url, json=body, timeout=PATIENCE_S))
        last = [line for line in reply.iter_lines() if line][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_unavailable"
