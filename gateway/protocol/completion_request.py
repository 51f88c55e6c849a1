"""The body of ``POST /v1/completions`` as a typed value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from engine.base import StructuredOutput
from gateway.errors import InvalidRequest
from gateway.protocol.chat_request import read_constraint
from gateway.protocol.completion_parameters import (
    COMPLETION,
    DEFAULT_MAX_TOKENS,
    MAX_TOTAL_CHOICES,
    MAX_TOTAL_LOGPROBS,
    MAX_TOTAL_TOKENS,
)
from gateway.protocol.completion_prompt import PromptValue
from gateway.protocol.parameters import read_fields
from gateway.protocol.values import wrong_value


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A checked request; what depends on the model is checked later.

    Attributes:
        prompts: one entry per prompt, its text or its token ids; at least one.
        suffix: what is to come after the completion, or None.
        fields: the sampling fields that were given, by OpenAI's names.
        max_tokens: most output tokens per choice, or None for the default.
        logprobs: number of alternatives per shown token, or None.
        prompt_logprobs: the same per prompt token in vLLM's form, or None.
        structured: what the output is held to. structured_field: the field that says so.
        continuous_usage: every chunk carries the usage so far.
        truncate: most tokens of each prompt, -1 for what fits, or None to refuse more.
        truncation_side: where to cut.
    """

    model: str | None
    prompts: list[PromptValue]
    suffix: str | None
    fields: dict[str, Any]
    stream: bool
    include_usage: bool
    continuous_usage: bool
    n: int
    max_tokens: int | None
    logprobs: int | None
    prompt_logprobs: int | None
    echo: bool
    structured: StructuredOutput | None
    structured_field: str
    bad_words: list[str]
    cache_salt: str | None
    add_special_tokens: bool
    truncate: int | None
    truncation_side: Literal["left", "right"]
    return_token_ids: bool
    tokens_as_ids: bool

    @property
    def scored(self) -> int | None:
        """Alternatives per prompt token that the engine has to report, or None."""
        if self.echo and self.logprobs is not None:
            return max(self.logprobs, self.prompt_logprobs or 0)
        return self.prompt_logprobs

    @property
    def choices(self) -> int:
        """Choices of all prompts together."""
        return len(self.prompts) * self.n


def read_completion_request(document: dict[str, Any], *, strict: bool = False) -> CompletionRequest:
    """Check a decoded body. Raises InvalidRequest naming the field at fault."""
    fields = read_fields(document, COMPLETION, strict=strict)
    stream = fields.get("stream", False)
    options = fields.get("stream_options")
    if options is not None and not stream:
        wrong_value("stream_options", "it is only allowed when 'stream' is true")
    n = fields.get("n", 1)
    if fields.get("best_of", n) != n:
        raise InvalidRequest(
            "'best_of' is not supported: it must equal 'n'; every choice is returned.",
            param="best_of",
            code="unsupported_parameter",
        )
    check_lengths(fields, stream)
    structured, structured_field = read_constraint(fields)
    usage = options or {}
    include_usage = bool(usage.get("include_usage"))
    request = CompletionRequest(
        model=fields.get("model"),
        prompts=fields["prompt"],
        suffix=fields.get("suffix"),
        fields=fields,
        stream=stream,
        include_usage=include_usage,
        continuous_usage=include_usage and bool(usage.get("continuous_usage_stats")),
        n=n,
        max_tokens=fields.get("max_tokens"),
        logprobs=fields.get("logprobs"),
        prompt_logprobs=fields.get("prompt_logprobs"),
        echo=fields.get("echo", False),
        structured=structured,
        structured_field=structured_field,
        bad_words=fields.get("bad_words", []),
        cache_salt=fields.get("cache_salt"),
        add_special_tokens=fields.get("add_special_tokens", True),
        truncate=fields.get("truncate_prompt_tokens"),
        truncation_side=fields.get("truncation_side", "left"),
        return_token_ids=fields.get("return_token_ids", False),
        tokens_as_ids=fields.get("return_tokens_as_token_ids", False),
    )
    if request.suffix is not None and request.echo:
        wrong_value("suffix", "it cannot be combined with 'echo'")
    if request.choices > MAX_TOTAL_CHOICES:
        wrong_value(
            "n", f"prompts times n is {request.choices}; at most {MAX_TOTAL_CHOICES} are allowed"
        )
    return request


def check_lengths(fields: dict[str, Any], stream: bool) -> None:
    """Raise InvalidRequest for contradictory lengths and reports."""
    asked = fields.get("max_tokens")
    scores = fields.get("echo") or fields.get("prompt_logprobs") is not None
    if asked == 0 and not scores:
        wrong_value("max_tokens", "0 is only allowed with 'echo' or 'prompt_logprobs'")
    most = DEFAULT_MAX_TOKENS if asked is None else asked
    if fields.get("min_tokens", 0) > most:
        wrong_value("min_tokens", "it must not be larger than 'max_tokens'")
    if fields.get("prompt_logprobs") is not None and stream:
        wrong_value("prompt_logprobs", "it is not available when 'stream' is true")
    if fields.get("truncate_prompt_tokens") == 0:
        wrong_value("truncate_prompt_tokens", "nothing of the prompt would be left")


def check_totals(request: CompletionRequest, prompt_tokens: int, output_tokens: int) -> None:
    """Bound one call as a whole: tokens in and out, and log-probabilities.

    Args:
        prompt_tokens: of all prompts.
        output_tokens: the most that all choices may have together.

    Raises InvalidRequest.
    """
    total = prompt_tokens + output_tokens
    if total > MAX_TOTAL_TOKENS:
        wrong_value(
            "prompt",
            f"all prompts and completions together may have {MAX_TOTAL_TOKENS} tokens, but "
            f"{total} were asked for",
        )
    entries = 0
    if request.scored is not None:
        entries += prompt_tokens * request.n * (request.scored + 1)
    if request.logprobs is not None:
        entries += output_tokens * (request.logprobs + 1)
    if entries > MAX_TOTAL_LOGPROBS:
        wrong_value(
            "logprobs" if request.logprobs is not None else "prompt_logprobs",
            f"at most {MAX_TOTAL_LOGPROBS} log-probabilities are reported per call, but {entries} "
            "were asked for",
        )
