"""Lengths of prompts without a chat template: cutting them, and refusing them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from gateway.errors import InvalidRequest
from gateway.protocol.completion_parameters import DEFAULT_MAX_TOKENS
from gateway.protocol.completion_request import CompletionRequest

if TYPE_CHECKING:
    from tokenizers import Encoding


def truncated(ids: list[int], request: CompletionRequest, limit: int) -> list[int]:
    """The part of a prompt to keep; ``ids`` itself when that is all of it."""
    if request.truncate is None:
        return ids
    output = DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens
    keep = max(limit - output, 1) if request.truncate == -1 else request.truncate
    if len(ids) <= keep:
        return ids
    return ids[:keep] if request.truncation_side == "right" else ids[-keep:]


def text_offsets(encoding: Encoding) -> tuple[int, ...]:
    """Where each token begins in the text it was made from; tokens that the tokenizer added
    stand at the place where they are."""
    offsets: list[int] = []
    end = 0
    for (first, last), added in zip(encoding.offsets, encoding.special_tokens_mask, strict=True):
        offsets.append(end if added and first == last else first)
        end = max(end, last)
    return tuple(offsets)


def refuse_length(
    limit: int, prompt: int, output: int | None, path: str, *, at_least: bool = False
) -> NoReturn:
    """Raise the context-length error in OpenAI's words."""
    about = "at least " if at_least else ""
    if output is None:
        message = (
            f"This model's maximum context length is {limit} tokens. However, your prompt "
            f"resulted in {about}{prompt} tokens. Please reduce the length of the prompt."
        )
    else:
        message = (
            f"This model's maximum context length is {limit} tokens. However, you requested "
            f"{prompt + output} tokens ({prompt} in the prompt, {output} in the completion). "
            "Please reduce the length of the prompt or completion."
        )
    param = "max_tokens" if output and prompt < limit else path
    raise InvalidRequest(message, param=param, code="context_length_exceeded")
