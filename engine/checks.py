"""Checks that every engine makes before it does any work for a request."""

from __future__ import annotations

import math
from collections.abc import Iterable

from engine.base import (
    EmbedRequest,
    GenerateRequest,
    ModelInfo,
    RequestRejected,
    SamplingParams,
)

NOTHING_ALLOWED = (
    "the options of this request exclude each other: none of the tokens that may come next is left "
    "by allowed_token_ids, logit_bias, bad_words, min_tokens and what constrains the answer"
)


def check_request(request: GenerateRequest, info: ModelInfo) -> None:
    """Raise RequestRejected when ``request`` can never succeed on the model ``info``."""
    _check_features(request, info)
    prompt, sampling = request.prompt_ids, request.sampling
    if not prompt:
        raise RequestRejected("the prompt is empty: it needs at least one token")
    _check_ids("the prompt", None, prompt, info)
    _check_sampling(sampling, info)
    if request.resume is not None:
        if sampling.n != 1:
            raise RequestRejected("only one choice can be resumed at a time", param="n")
        _check_ids("the output to resume", None, request.resume.token_ids, info)
    longest = info.max_model_len
    if len(prompt) + sampling.max_tokens > longest:
        raise RequestRejected(
            f"this model's maximum context length is {longest} tokens, and you requested "
            f"{len(prompt) + sampling.max_tokens} ({len(prompt)} in the prompt, "
            f"{sampling.max_tokens} for the output)",
            code="context_length_exceeded",
        )


def check_embed_request(request: EmbedRequest, info: ModelInfo) -> None:
    """Raise RequestRejected when ``request`` can never succeed on the model ``info``."""
    space = info.embedding
    if space is None:
        raise RequestRejected("this model makes no embeddings", param="model")
    if not request.prompts:
        raise RequestRejected("there is no prompt: at least one is needed", param="input")
    for prompt in request.prompts:
        if not prompt:
            raise RequestRejected("a prompt is empty: it needs at least one token", param="input")
        if len(prompt) > info.max_model_len:
            raise RequestRejected(
                f"this model's maximum context length is {info.max_model_len} tokens, and a "
                f"prompt has {len(prompt)}",
                param="input",
                code="context_length_exceeded",
            )
        _check_ids("the prompt", "input", prompt, info)
    if request.dimensions is not None and not space.allows(request.dimensions):
        raise RequestRejected(
            f"this model does not make vectors of {request.dimensions} dimensions",
            param="dimensions",
        )


def _check_features(request: GenerateRequest, info: ModelInfo) -> None:
    can = info.capabilities
    if not can.generation:
        raise RequestRejected("this is an embedding model: it generates no text", param="model")
    for asked, able, param, what in (
        (
            request.sampling.structured,
            can.structured_output,
            "response_format",
            "structured output",
        ),
        (request.lora, can.lora, "model", "LoRA adapters"),
        (request.images or None, can.images, "messages", "images"),
    ):
        if asked is not None and not able:
            raise RequestRejected(
                f"this engine does not support {what}", param=param, code="unsupported_parameter"
            )


def _check_sampling(sampling: SamplingParams, info: ModelInfo) -> None:
    can = info.capabilities
    _check_range("max_tokens", sampling.max_tokens, 0)
    _check_range("n", sampling.n, 1)
    _check_range("temperature", sampling.temperature, 0)
    _check_range("top_p", sampling.top_p, 0, 1)
    _check_range("min_p", sampling.min_p, 0, 1)
    _check_range("top_k", sampling.top_k, 0)
    _check_range("min_tokens", sampling.min_tokens, 0, sampling.max_tokens)
    _check_range("presence_penalty", sampling.presence_penalty)
    _check_range("frequency_penalty", sampling.frequency_penalty)
    _check_range("repetition_penalty", sampling.repetition_penalty, 0)
    if sampling.repetition_penalty == 0:
        raise RequestRejected("repetition_penalty must be above 0", param="repetition_penalty")
    for bias in sampling.logit_bias.values():
        _check_range("logit_bias", bias, -100, 100)
    if sampling.logprobs is not None:
        _check_range("top_logprobs", sampling.logprobs, 0, can.max_logprobs)
    if sampling.prompt_logprobs is not None:
        if not can.prompt_logprobs:
            raise RequestRejected(
                "this engine does not report log-probabilities of the prompt",
                param="prompt_logprobs",
                code="unsupported_parameter",
            )
        _check_range("prompt_logprobs", sampling.prompt_logprobs, 0, can.max_logprobs)
    if any(not stop for stop in sampling.stop):
        raise RequestRejected("a stop string is empty", param="stop")
    if any(not word for word in sampling.bad_words):
        raise RequestRejected("a bad word is empty", param="bad_words")
    if sampling.allowed_token_ids is not None and not sampling.allowed_token_ids:
        raise RequestRejected("allowed_token_ids is empty", param="allowed_token_ids")
    _check_ids("logit_bias", "logit_bias", sampling.logit_bias, info)
    _check_ids("stop_token_ids", "stop_token_ids", sampling.stop_token_ids, info)
    _check_ids("allowed_token_ids", "allowed_token_ids", sampling.allowed_token_ids or (), info)
    for word in sampling.bad_words:
        _check_ids("bad_words", "bad_words", word, info)


def _check_range(name: str, value: float, low: float = -math.inf, high: float = math.inf) -> None:
    if not (math.isfinite(value) and low <= value <= high):
        bounds = f" in [{low:g}, {high:g}]" if high < math.inf else f" of at least {low:g}"
        wanted = bounds if low > -math.inf else ""
        raise RequestRejected(f"{name} must be a finite number{wanted}", param=name)


def _check_ids(what: str, param: str | None, ids: Iterable[int], info: ModelInfo) -> None:
    ids = tuple(ids)
    if ids and not (min(ids) >= 0 and max(ids) < info.vocab_size):
        raise RequestRejected(
            f"{what} holds a token id outside of [0, {info.vocab_size})", param=param
        )


def narrows(sampling: SamplingParams) -> bool:
    """Whether a constraint and other options both exclude tokens, so that none may be left."""
    s = sampling
    others = s.allowed_token_ids is not None or s.logit_bias or s.bad_words or s.min_tokens
    return s.structured is not None and bool(others)
