"""docs/compatibility.md against the code and both engines, field by field."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_process import PATIENCE_S, ServerProcess

from gateway.protocol.parameters import Parameter

sys.path.append(str(Path(__file__).parents[2] / "scripts"))

from compatibility import DOCUMENT, FIELDS, TABLES, document

Json = dict[str, Any]
SAY: Json = {"role": "user", "content": "Hi"}
TOOL: Json = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CLAUDES: Json = {"name": "f", "input_schema": {"type": "object"}}
FLAT: Json = {"type": "function", "name": "f", "parameters": {"type": "object"}}
SCHEMA: Json = {"type": "object", "properties": {}, "additionalProperties": False}
CHAT: Json = {"messages": [SAY], "max_tokens": 2}
# The least that each endpoint takes.
BODIES: dict[str, Json] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "Hi", "max_tokens": 2},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 2},
    "/v1/messages": {"model": "bundled", **CHAT},
    "/v1/messages/count_tokens": {"model": "bundled", "messages": [SAY]},
    "/tokenize": {"prompt": "Hi"},
    "/detokenize": {"tokens": [72]},
    "/predict": {"instances": [CHAT]},
    "/v1/embeddings": {"input": "hello"},
}
# Asked of models that make embeddings in test_vllm_embeddings.py.
GENERATING = [path for path in BODIES if path != "/v1/embeddings"]
# A right value of each honoured field, by its name alone or together with what it needs.
VALUES: Json = {
    "model": "bundled",
    "stream": False,
    "n": 2,
    "stop": ["zzz"],
    "stop_token_ids": [1],
    "stop_sequences": ["zzz"],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "min_p": 0.1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.1,
    "logit_bias": {"72": -5},
    "bad_words": ["foo"],
    "allowed_token_ids": [72, 73, 74],
    "seed": 7,
    "min_tokens": 1,
    "include_stop_str_in_output": True,
    "ignore_eos": True,
    "skip_special_tokens": False,
    "prompt_logprobs": 1,
    "echo": True,
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    "max_completion_tokens": 2,
    "max_tokens": 2,
    "max_output_tokens": 2,
    "response_format": {"type": "json_object"},
    "structured_outputs": {"choice": ["a", "b"]},
    "guided_json": SCHEMA,
    "guided_regex": "[ab]",
    "guided_choice": ["a", "b"],
    "guided_grammar": 'root ::= "a"',
    "reasoning_effort": "none",
    "include_reasoning": False,
    "add_generation_prompt": True,
    "chat_template_kwargs": {"enable_thinking": False},
    "cache_salt": "salt",
    "best_of": 1,
    "add_special_tokens": False,
    "truncate_prompt_tokens": 1,
    "truncation_side": "right",
    "return_token_strs": True,
    "instructions": "Be kind.",
    "system": "Be kind.",
    "store": False,
    "include": ["message.output_text.logprobs"],
    "metadata": {"a": "b"},
    "text": {"format": {"type": "text"}},
    "reasoning": {"effort": "none"},
    "truncation": "auto",
    "thinking": {"type": "disabled"},
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    "output_format": {"type": "json_schema", "schema": SCHEMA},
    "parameters": {"temperature": 0},
    "encoding_format": "base64",
    "dimensions": 8,
    "use_activation": False,
    "service_tier": "default",
}
TOGETHER: dict[tuple[str, str], Json] = {
    ("/v1/chat/completions", "stream_options"): {
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    ("/v1/completions", "stream_options"): {
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    ("/v1/chat/completions", "logprobs"): {"logprobs": True},
    ("/v1/completions", "logprobs"): {"logprobs": 1},
    ("/v1/chat/completions", "top_logprobs"): {"logprobs": True, "top_logprobs": 1},
    ("/v1/responses", "top_logprobs"): {"top_logprobs": 1},
    ("/v1/responses", "stream_options"): {
        "stream": True,
        "stream_options": {"include_obfuscation": False},
    },
    ("/v1/responses", "background"): {"background": True, "store": True},
    ("/v1/completions", "max_tokens"): {"max_tokens": 0, "echo": True},
    ("/v1/embeddings", "model"): {"model": "embedder"},
    ("/v1/embeddings", "truncate_prompt_tokens"): {"truncate_prompt_tokens": 10},
    ("/tokenize", "messages"): {"prompt": None, "messages": [SAY]},
    ("/tokenize", "tools"): {"prompt": None, "messages": [SAY], "tools": [TOOL]},
}
TOOLS = {
    "/v1/chat/completions": (TOOL, "none"),
    "/v1/responses": (FLAT, "none"),
    "/v1/messages": (CLAUDES, {"type": "none"}),
    "/v1/messages/count_tokens": (CLAUDES, {"type": "none"}),
}
FINAL: Json = {
    "messages": [SAY, {"role": "assistant", "content": "I"}],
    "continue_final_message": True,
    "add_generation_prompt": False,
}
# The model has to be made for it, or the store has to hold something.
NEEDS_MORE = {"suffix", "previous_response_id"}


def right_body(path: str, name: str) -> Json:
    """A body in which the field has an effect."""
    body = BODIES[path]
    if name in body and (path, name) not in TOGETHER:
        return body
    if (path, name) in TOGETHER:
        return {**body, **TOGETHER[path, name]}
    if name in ("tools", "tool_choice", "parallel_tool_calls"):
        tool, choice = TOOLS[path]
        given = {"tools": [tool], "tool_choice": choice, "parallel_tool_calls": False}
        return {**body, "tools": [tool], name: given[name]}
    if name == "continue_final_message":
        return {**body, **FINAL, **({"prompt": None} if "prompt" in body else {})}
    if path == "/tokenize" and name in ("add_generation_prompt", "chat_template_kwargs"):
        return {"messages": [SAY], name: VALUES[name]}
    return {**body, name: VALUES[name]}


def probes(path: str, table: Any) -> Iterator[tuple[str, Json, str | None]]:
    """What to send, and the field that must be refused or None."""
    wrong = {"probe": 1}
    parameter: Parameter
    for name, parameter in table.items():
        if parameter.treatment == "refused":
            yield name, {**BODIES[path], name: wrong}, name
            for value in parameter.harmless:
                yield name, {**BODIES[path], name: value}, None
        elif parameter.treatment == "ignored":
            yield name, {**BODIES[path], name: wrong}, None
        elif name not in NEEDS_MORE:
            yield name, right_body(path, name), None


def check_fields(server: ServerProcess, path: str) -> None:
    """Every field of the endpoint does here what its table says."""

    def complaint(probe: tuple[str, Json, str | None]) -> str | None:
        name, body, refused = probe
        reply = http.post(f"{server.url}{path}", json=body)
        if refused is None:
            return None if reply.status_code == 200 else f"{name}: {reply.text}"
        fits = reply.status_code == 400 and f"'{refused}' is not supported" in reply.text
        return None if fits else f"{name} should be refused: {reply.text}"

    with httpx.Client(timeout=PATIENCE_S) as http, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(complaint, probes(path, TABLES[path])))
    assert len(found) >= 2
    assert [text for text in found if text] == []


@pytest.mark.parametrize("path", GENERATING)
def test_every_field_on_the_onnx_engine(on_onnx: ServerProcess, path: str) -> None:
    check_fields(on_onnx, path)


@pytest.mark.parametrize("path", GENERATING)
def test_every_field_on_vllm(on_vllm: ServerProcess, path: str) -> None:
    check_fields(on_vllm, path)


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text() == document(), "run python scripts/compatibility.py"


def test_every_field_of_vllm_is_known_here() -> None:
    """None is dropped silently: it is honoured, declared harmless, or refused."""
    for path, names in json.loads(FIELDS.read_text())["fields"].items():
        assert set(names) <= set(TABLES[path]), path
