"""The body of ``POST /v1/chat/completions`` as a typed value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.base import SamplingParams, StructuredOutput
from gateway.chat.constraints import (
    ToolChoice,
    read_response_format,
    read_structured_outputs,
    read_tool_choice,
)
from gateway.errors import InvalidRequest
from gateway.protocol.chat_parameters import CHAT
from gateway.protocol.messages import Message
from gateway.protocol.parameters import read_fields
from gateway.protocol.sampling_parameters import SamplingSource
from gateway.protocol.values import wrong_value

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
        structured: what the answer is held to. structured_field: the field that says so.
        reasoning_effort: passed to the chat template; None leaves the template its default.
        include_reasoning: False leaves the reasoning out of the answer.
        continuous_usage: every chunk carries the usage so far.
        return_token_ids: the answer lists token ids of prompt and output.
        tokens_as_ids: logprobs spell tokens as ``token_id:N``.
    """

    model: str | None
    messages: list[Message]
    fields: dict[str, Any]
    stream: bool
    include_usage: bool
    continuous_usage: bool
    n: int
    max_tokens: int | None
    max_tokens_field: str
    logprobs: int | None
    prompt_logprobs: int | None
    echo: bool
    return_token_ids: bool
    tokens_as_ids: bool
    tools: list[dict[str, Any]]
    tool_choice: ToolChoice
    parallel_tool_calls: bool
    structured: StructuredOutput | None
    structured_field: str
    reasoning_effort: str | None
    include_reasoning: bool
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
    if options is None:
        options = {}
    elif not stream:
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
    tools = fields.get("tools", [])
    tool_choice = read_tool_choice(fields.get("tool_choice"), tools)
    structured, structured_field = read_constraint(fields)
    include_usage = options.get("include_usage", False)
    return ChatRequest(
        model=fields.get("model"),
        messages=fields["messages"],
        fields=fields,
        stream=stream,
        include_usage=include_usage,
        continuous_usage=include_usage and options.get("continuous_usage_stats", False),
        n=fields.get("n", 1),
        max_tokens=max_tokens,
        max_tokens_field=max_tokens_field,
        logprobs=read_logprobs(fields),
        prompt_logprobs=fields.get("prompt_logprobs"),
        echo=fields.get("echo", False),
        return_token_ids=fields.get("return_token_ids", False),
        tokens_as_ids=fields.get("return_tokens_as_token_ids", False),
        tools=tools if tool_choice.mode != "none" else [],
        tool_choice=tool_choice,
        parallel_tool_calls=fields.get("parallel_tool_calls", True),
        structured=structured,
        structured_field=structured_field,
        reasoning_effort=fields.get("reasoning_effort"),
        include_reasoning=fields.get("include_reasoning", True),
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


def read_constraint(fields: dict[str, Any]) -> tuple[StructuredOutput | None, str]:
    """What the answer is held to, and the field that says so. One field may."""
    found: list[tuple[StructuredOutput | None, str]] = [
        (read_response_format(fields.get("response_format")), "response_format"),
        (read_structured_outputs(fields.get("structured_outputs")), "structured_outputs"),
    ]
    for name in ("json", "regex", "choice", "grammar"):
        field = f"guided_{name}"
        if field in fields:
            found.append((read_guided(name, fields[field], field), field))
    given = [(constraint, field) for constraint, field in found if constraint is not None]
    if len(given) > 1:
        wrong_value(given[1][1], f"it cannot be combined with '{given[0][1]}'")
    return given[0] if given else (None, "response_format")


def read_guided(kind: str, value: Any, field: str) -> StructuredOutput | None:
    """vLLM's older name for an entry of ``structured_outputs``; errors name that older name."""
    try:
        return read_structured_outputs({kind: value}, field)
    except InvalidRequest as error:
        if error.param is None:
            raise
        path = error.param.replace(f"{field}.{kind}", field, 1)
        message = error.message.replace(error.param, path, 1)
        raise InvalidRequest(message, param=path, code=error.code) from None


def sampling_params(
    request: SamplingSource,
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


def check_token_ids(request: SamplingSource, vocab_size: int) -> None:
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
