"""From the inputs of an embedding request to token ids within the model's bounds."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NoReturn

from engine.base import ModelInfo
from gateway.chat.tokens import encoded
from gateway.errors import InvalidRequest
from gateway.protocol.embedding_request import MAX_TOTAL_TOKENS, EmbeddingRequest

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Abandoned(Exception):
    """Nobody waits for the token ids any more."""


def token_ids(
    info: ModelInfo, request: EmbeddingRequest, abandoned: threading.Event
) -> list[list[int]]:
    """Token ids of every input. Runs in a thread; stops soon after ``abandoned`` is set.

    Raises InvalidRequest: an input is empty, holds an unknown id, or is longer than the model
    takes (``context_length_exceeded``), or all are more than MAX_TOTAL_TOKENS together.
    """
    check_dimensions(info, request)
    longest = info.max_model_len
    limit = request.truncate
    if limit is not None:
        limit = longest if limit == -1 else limit
        if limit > longest:
            raise InvalidRequest(
                f"Invalid 'truncate_prompt_tokens': this model takes at most {longest} tokens.",
                param="truncate_prompt_tokens",
            )
    single = len(request.inputs) == 1
    found: list[list[int]] = []
    total = 0
    for index, given in enumerate(request.inputs):
        if abandoned.is_set():
            raise Abandoned
        path = "input" if single else f"input[{index}]"
        if isinstance(given, str):
            ids = encode(info.tokenizer, given, request, limit)
        else:
            ids = cut(given, request, limit)
            if max(ids) >= info.vocab_size:
                raise InvalidRequest(
                    f"Invalid '{path}': token ids must be below {info.vocab_size}.", param=path
                )
        if not ids:
            raise InvalidRequest(f"Invalid '{path}': the text has no tokens.", param=path)
        if len(ids) > longest:
            too_long(longest, len(ids), path)
        total += len(ids)
        if total > MAX_TOTAL_TOKENS:
            raise InvalidRequest(
                f"Invalid 'input': a request may have at most {MAX_TOTAL_TOKENS} tokens, summed "
                "over all inputs. Send several requests.",
                param="input",
                code="max_tokens_per_request",
            )
        found.append(ids)
    return found


def encode(
    tokenizer: Tokenizer, text: str, request: EmbeddingRequest, limit: int | None
) -> list[int]:
    """Ids of a text, cut before the special tokens are added so that those stay."""
    special = request.add_special_tokens
    ids: list[int] = encoded(tokenizer, text, special=special).ids
    if limit is None or len(ids) <= limit:
        return ids
    frame = tokenizer.num_special_tokens_to_add(False) if special else 0
    if limit <= frame:
        raise InvalidRequest(
            f"Invalid 'truncate_prompt_tokens': {frame} special tokens and one of the text are "
            "the least.",
            param="truncate_prompt_tokens",
        )
    bare = encoded(tokenizer, text)
    bare.truncate(limit - frame, direction="left" if request.keep_end else "right")
    framed: list[int] = tokenizer.post_process(bare, None, special).ids
    return framed


def cut(ids: list[int], request: EmbeddingRequest, limit: int | None) -> list[int]:
    """Given ids, cut to ``limit``."""
    if limit is None or len(ids) <= limit:
        return ids
    return ids[-limit:] if request.keep_end else ids[:limit]


def check_dimensions(info: ModelInfo, request: EmbeddingRequest) -> None:
    """Raise InvalidRequest unless the model's vectors may be cut to the wanted length."""
    wanted, space = request.dimensions, info.embedding
    if wanted is None or space is None or space.allows(wanted):
        return
    if wanted > space.dimension:
        why = f"this model's vectors have {space.dimension} dimensions"
    elif space.shortened:
        why = f"this model allows {', '.join(map(str, sorted(space.shortened)))}"
    else:
        raise InvalidRequest(
            "This model does not support specifying dimensions: it was not trained for shorter "
            f"vectors. Leave it out to get all {space.dimension}.",
            param="dimensions",
            code="unsupported_parameter",
        )
    raise InvalidRequest(f"Invalid 'dimensions': {why}.", param="dimensions")


def too_long(longest: int, got: int, path: str) -> NoReturn:
    """Raise the context-length error in OpenAI's words."""
    raise InvalidRequest(
        f"This model's maximum context length is {longest} tokens, however you requested {got} "
        f"tokens in '{path}'. Please shorten it, or send 'truncate_prompt_tokens': -1.",
        param=path,
        code="context_length_exceeded",
    )
