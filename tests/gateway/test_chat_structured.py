"""Structured output through the official SDK: what comes is valid, whatever the model thinks."""

import json
import re
import threading
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import jsonschema
import openai
import pydantic
import pytest
from server_process import MESSAGES, NewServer, ServerProcess

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "kind": {"enum": ["cat", "dog"]},
        "age": {"type": "integer", "minimum": 0, "maximum": 30},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 8}, "maxItems": 3},
    },
    "required": ["name", "kind", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture
def server(shared_server: NewServer) -> ServerProcess:
    return shared_server(ENGINE="onnx", MAX_NUM_SEQS="1")


@pytest.fixture
def bundled(server: ServerProcess) -> Iterator[openai.OpenAI]:
    url = f"{server.url}/v1"
    with openai.OpenAI(base_url=url, api_key="x", max_retries=0, timeout=120) as client:
        yield client


def text_of(client: openai.OpenAI, *, stream: bool = False, **fields: Any) -> str:
    fields = {"messages": MESSAGES, "temperature": 0, "max_tokens": 400, **fields}
    answer: Any = client.chat.completions.create(model="bundled", stream=stream, **fields)
    if not stream:
        assert answer.choices[0].finish_reason == "stop"
        return str(answer.choices[0].message.content)
    return "".join(chunk.choices[0].delta.content or "" for chunk in answer)


def schema_format(schema: Any, **options: Any) -> Any:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, **options}}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 1.5, "seed": 3}])
def test_json_after_a_schema(bundled: openai.OpenAI, options: Any, stream: bool) -> None:
    wanted = schema_format(SCHEMA, strict=True)
    text = text_of(bundled, response_format=wanted, stream=stream, **options)
    jsonschema.validate(json.loads(text), SCHEMA)


def test_every_choice_is_valid(bundled: openai.OpenAI) -> None:
    answer = bundled.chat.completions.create(
        model="bundled",
        messages=MESSAGES,
        n=4,
        temperature=1.2,
        response_format=schema_format(SCHEMA),
    )
    for choice in answer.choices:
        jsonschema.validate(json.loads(choice.message.content or ""), SCHEMA)


# Nothing but the model's own will ends an object that may hold anything.
AN_OBJECT = [{"role": "user", "content": "Give me a JSON object with name Ada and age 36."}]


def test_any_object(bundled: openai.OpenAI) -> None:
    text = text_of(bundled, messages=AN_OBJECT, response_format={"type": "json_object"})
    assert isinstance(json.loads(text), dict)


class Pet(pydantic.BaseModel):
    kind: Literal["cat", "dog"]
    legs: int


def test_the_parsing_helper_of_the_sdk(bundled: openai.OpenAI) -> None:
    answer = bundled.chat.completions.parse(
        model="bundled", messages=MESSAGES, response_format=Pet, max_tokens=400, seed=1
    )
    assert isinstance(answer.choices[0].message.parsed, Pet)


@pytest.mark.parametrize(
    ("constraint", "pattern"),
    [
        ({"regex": r"[0-9]{3}-[a-f]{2}"}, r"[0-9]{3}-[a-f]{2}"),
        ({"choice": ["red", "green", "dark blue"]}, "red|green|dark blue"),
        ({"grammar": 'start: "<" WORD ">"\nWORD: /[a-z]{1,9}/'}, "<[a-z]{1,9}>"),
        ({"grammar": 'root ::= "a" ("b" | "c")'}, "a[bc]"),
        ({"json": {"type": "array", "items": {"const": 1}, "maxItems": 2}}, r"\[(1(, ?1)?)?\]"),
        ({"json_object": True}, r"\{.*\}"),
    ],
    ids=["regex", "choice", "lark", "gbnf", "json", "json_object"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_structured_outputs(
    bundled: openai.OpenAI, constraint: Any, pattern: str, stream: bool
) -> None:
    body = {"structured_outputs": constraint}
    messages = AN_OBJECT if "json_object" in constraint else MESSAGES
    text = text_of(bundled, messages=messages, extra_body=body, stream=stream)
    assert re.fullmatch(pattern, text, re.DOTALL)


def test_older_names_of_vllm(bundled: openai.OpenAI) -> None:
    assert text_of(bundled, extra_body={"guided_choice": ["x7", "y8"]}) in ("x7", "y8")


def test_logprobs_and_usage_beside_a_constraint(bundled: openai.OpenAI) -> None:
    answer = bundled.chat.completions.create(
        model="bundled",
        messages=MESSAGES,
        logprobs=True,
        top_logprobs=2,
        extra_body={"structured_outputs": {"regex": "[0-9]{4}"}},
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    spelled = "".join(entry.token for entry in logprobs.content or [])
    # vLLM samples the end as a token of its own.
    assert spelled.removesuffix("<|im_end|>") == answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len(logprobs.content or [])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": schema_format({"not": {"type": "null"}}, strict=True)}, None),
        ({"response_format": schema_format({"type": "nonsense"}, strict=True)}, None),
        ({"response_format": schema_format({"$ref": "https://example.com/x"})}, None),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"extra_body": {"structured_outputs": {"regex": "(?=a)b"}}}, "structured_outputs"),
        ({"extra_body": {"structured_outputs": {"grammar": "start: x"}}}, "structured_outputs"),
        ({"extra_body": {"structured_outputs": {"json": "{"}}}, "structured_outputs.json"),
        ({"extra_body": {"structured_outputs": {"choice": []}}}, "structured_outputs.choice"),
        (
            {
                "response_format": {"type": "json_object"},
                "extra_body": {"structured_outputs": {"regex": "a"}},
            },
            "structured_outputs",
        ),
    ],
)
def test_what_cannot_be_enforced_is_a_400(
    bundled: openai.OpenAI, fields: dict[str, Any], param: str | None, stream: bool
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        text_of(bundled, stream=stream, **fields)
    assert caught.value.param == (param or "response_format")


def token_of(server: ServerProcess, text: str) -> int:
    asked = {"model": "bundled", "prompt": text, "add_special_tokens": False}
    (token,) = httpx.post(f"{server.url}/tokenize", json=asked).json()["tokens"]
    return int(token)


@pytest.mark.parametrize("stream", [False, True])
def test_options_that_leave_no_token_are_the_callers_fault(
    server: ServerProcess, bundled: openai.OpenAI, stream: bool
) -> None:
    a, z = token_of(server, "a"), token_of(server, "z")
    for regex, allowed in (("[ab]+", z), ("ab", a)):
        extra = {"structured_outputs": {"regex": regex}, "allowed_token_ids": [allowed]}
        with pytest.raises(openai.APIError, match="exclude each other") as caught:
            text_of(bundled, stream=stream, extra_body=extra)
        assert caught.value.type == "invalid_request_error"
        # Once something has been sent there is no status to say it with.
        if not stream or allowed == z:
            assert isinstance(caught.value, openai.BadRequestError)
    assert text_of(bundled, extra_body={"structured_outputs": {"regex": "[ab]{3}"}})


def test_hostile_constraints_end_in_time_and_leave_others_alone(server: ServerProcess) -> None:
    hostile: list[Any] = [
        {"regex": "(a{1000}){1000}"},
        {"regex": "(" * 3000 + "a" + ")" * 3000},
        {"grammar": "start: a\n" + "\n".join(f"a{i}: a{i + 1}" for i in range(4000))},
        {"json": json.dumps({"anyOf": [{"pattern": f"(x{i}|y+)*z" * 5} for i in range(200)]})},
    ]
    statuses: list[int] = []

    def send(constraint: Any) -> None:
        body = {"messages": MESSAGES, "structured_outputs": constraint, "max_tokens": 5}
        reply = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)
        statuses.append(reply.status_code)

    threads = [threading.Thread(target=send, args=(one,)) for one in hostile]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(statuses) == len(hostile)
    assert set(statuses) <= {200, 400}
    body = {"messages": MESSAGES, "max_tokens": 3}
    assert httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).is_success
