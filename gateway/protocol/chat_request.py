"""The body of ``POST /v1/chat/completions`` as a typed value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from engine.base import SamplingParams, StructuredOutput
from gateway.errors import InvalidRequest
from gateway.protocol.chat_parameters import CHAT
from gateway.protocol.messages import Message
from gateway.protocol.parameters import read_fields
from gateway.protocol.values import OneOf, missing, wrong_type, wrong_value

# OpenAI allows 0, which keeps the likeliest token only; engines ask for more than 0.
SMALLEST_TOP_P = 1e-6


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request; what depends on the model is checked later.

    Attributes:
        fields: the sampling fields that were given, by OpenAI's names.
        max_tokens: most output tokens per choice, or None for what fits.
        max_tokens_field: the name under which it was given, for errors.
        logprobs: number of alternatives per output token, or None.
        tools: offered functions; empty when none or when ``tool_choice`` is ``none``.
    """

    model: str | None
    messages: list[Message]
    fields: dict[str, Any]
    stream: bool
    include_usage: bool
    n: int
    max_tokens: int | None
    max_tokens_field: str
    logprobs: int | None
    prompt_logprobs: int | None
    echo: bool
    tools: list[dict[str, Any]]
    parallel_tool_calls: bool
    structured: StructuredOutput | None
    add_generation_prompt: bool
    continue_final_message: bool
    template_variables: dict[str, Any]
    bad_words: list[str]
    cache_salt: str | None


def read_chat_request(document: dict[str, Any], *, strict: bool = False) -> ChatRequest:
    """Check a decoded body. Raises InvalidRequest naming the field at fault."""
    fields = read_fields(document, CHAT, strict=strict)
    stream = fields.get("stream", False)
    options = fields.get("stream_options")
    if options is not None and not stream:
        wrong_value("stream_options", "it is only allowed when 'stream' is true")
    max_tokens, max_tokens_field = read_max_tokens(fields)
    if fields.get("min_tokens", 0) > (max_tokens or 2**63):
        wrong_value("min_tokens", f"it must not be larger than '{max_tokens_field}'")
    if fields.get("prompt_logprobs") is not None and stream:
        wrong_value("prompt_logprobs", "it is not available when 'stream' is true")
    continues = fields.get("continue_final_message", False)
    opens = fields.get("add_generation_prompt", not continues)
    if continues and opens:
        wrong_value("continue_final_message", "it cannot be combined with 'add_generation_prompt'")
    return ChatRequest(
        model=fields.get("model"),
        messages=fields["messages"],
        fields=fields,
        stream=stream,
        include_usage=bool(options and options.get("include_usage")),
        n=fields.get("n", 1),
        max_tokens=max_tokens,
        max_tokens_field=max_tokens_field,
        logprobs=read_logprobs(fields),
        prompt_logprobs=fields.get("prompt_logprobs"),
        echo=fields.get("echo", False),
        tools=read_tools(fields),
        parallel_tool_calls=fields.get("parallel_tool_calls", True),
        structured=read_response_format(fields.get("response_format")),
        add_generation_prompt=opens,
        continue_final_message=continues,
        template_variables=fields.get("chat_template_kwargs", {}),
        bad_words=fields.get("bad_words", []),
        cache_salt=fields.get("cache_salt"),
    )


def read_max_tokens(fields: dict[str, Any]) -> tuple[int | None, str]:
    """The bound on output and the name it was given under."""
    old, new = fields.get("max_tokens"), fields.get("max_completion_tokens")
    if old is not None and new is not None and old != new:
        wrong_value("max_tokens", "it differs from 'max_completion_tokens'; send only one")
    if new is not None:
        return new, "max_completion_tokens"
    return old, "max_tokens"


def read_logprobs(fields: dict[str, Any]) -> int | None:
    """Alternatives per output token (0: the chosen token only), or None for no logprobs."""
    top = fields.get("top_logprobs")
    if fields.get("logprobs"):
        return top or 0
    if top is not None:
        wrong_value("top_logprobs", "it is only allowed when 'logprobs' is true")
    return None


def read_tools(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """The tools to offer under ``tool_choice``."""
    tools: list[dict[str, Any]] = fields.get("tools", [])
    choice = fields.get("tool_choice")
    if choice is None:
        return tools
    if type(choice) is dict:
        raise InvalidRequest(
            "A named 'tool_choice' is not supported: this server cannot enforce it yet. "
            "Use 'auto' or 'none'.",
            param="tool_choice",
            code="unsupported_parameter",
        )
    if type(choice) is not str:
        wrong_type("tool_choice", choice, "a string or an object")
    OneOf(("auto", "none", "required")).read(choice, "tool_choice")
    if choice == "required":
        raise InvalidRequest(
            "'tool_choice': 'required' is not supported: this server cannot enforce it yet. "
            "Use 'auto' or 'none'.",
            param="tool_choice",
            code="unsupported_parameter",
        )
    if choice == "auto" and not tools:
        wrong_value("tool_choice", "it is only allowed when 'tools' are given")
    return tools if choice == "auto" else []


def read_response_format(value: Any) -> StructuredOutput | None:
    """The constraint that ``response_format`` asks for; None for plain text."""
    path = "response_format"
    if value is None:
        return None
    if type(value) is not dict:
        wrong_type(path, value, "an object")
    if value.get("type") is None:
        missing(f"{path}.type")
    kind = OneOf(("text", "json_object", "json_schema")).read(value["type"], f"{path}.type")
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutput(json_object=True)
    wrapper = value.get("json_schema")
    if wrapper is None:
        missing(f"{path}.json_schema")
    if type(wrapper) is not dict:
        wrong_type(f"{path}.json_schema", wrapper, "an object")
    schema = wrapper.get("schema")
    if schema is None:
        missing(f"{path}.json_schema.schema")
    if type(schema) is not dict:
        wrong_type(f"{path}.json_schema.schema", schema, "an object")
    return StructuredOutput(json_schema=orjson.dumps(schema).decode())


def sampling_params(
    request: ChatRequest,
    *,
    max_tokens: int,
    bad_words: tuple[tuple[int, ...], ...],
    defaults: Mapping[str, float],
) -> SamplingParams:
    """The engine's options for a request.

    ``max_tokens`` is what the context allows; ``bad_words`` are token id sequences;
    ``defaults`` are the model's own, for what the request leaves out.
    """
    fields = {**defaults, **request.fields}
    allowed = fields.get("allowed_token_ids")
    seed = fields.get("seed")
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=fields.get("temperature", 1.0),
        top_p=max(fields.get("top_p", 1.0), SMALLEST_TOP_P),
        top_k=max(fields.get("top_k", 0), 0),
        min_p=fields.get("min_p", 0.0),
        presence_penalty=fields.get("presence_penalty", 0.0),
        frequency_penalty=fields.get("frequency_penalty", 0.0),
        repetition_penalty=fields.get("repetition_penalty", 1.0),
        logit_bias=read_logit_bias(fields.get("logit_bias", {})),
        bad_words=bad_words,
        allowed_token_ids=tuple(allowed) if allowed is not None else None,
        seed=seed % 2**63 if seed is not None else None,
        stop=tuple(fields.get("stop", ())),
        include_stop_str_in_output=fields.get("include_stop_str_in_output", False),
        stop_token_ids=tuple(fields.get("stop_token_ids", ())),
        min_tokens=min(fields.get("min_tokens", 0), max_tokens),
        ignore_eos=fields.get("ignore_eos", False),
        skip_special_tokens=fields.get("skip_special_tokens", True),
        n=request.n,
        logprobs=request.logprobs,
        prompt_logprobs=request.prompt_logprobs,
        structured=request.structured,
    )


def read_logit_bias(biases: dict[str, float]) -> dict[int, float]:
    """Biases by token id."""
    for key in biases:
        if not (key.isascii() and key.isdigit()):
            wrong_value("logit_bias", "keys must be token ids, as decimal digits")
    return {int(key): bias for key, bias in biases.items()}


def check_token_ids(request: ChatRequest, vocab_size: int) -> None:
    """Raise InvalidRequest when a field names a token that the model does not have."""
    fields = request.fields
    named: dict[str, list[int]] = {
        "logit_bias": list(read_logit_bias(fields.get("logit_bias", {}))),
        "allowed_token_ids": fields.get("allowed_token_ids", []),
        "stop_token_ids": fields.get("stop_token_ids", []),
    }
    for name, ids in named.items():
        if ids and max(ids) >= vocab_size:
            wrong_value(name, f"token ids must be below {vocab_size}")
