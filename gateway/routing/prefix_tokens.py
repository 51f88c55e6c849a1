"""The first tokens of a prompt, by which requests that share them find the same KV cache.

vLLM and its kin find a prefix again in whole blocks of tokens. So what is hashed are the blocks
at the beginning of the prompt as the model reads it: its chat template rendered, its text in
tokens. Where that cannot be done, the prompt's characters have to do.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.chat.raw_prompt import in_thread
from gateway.chat.template import ChatTemplate
from gateway.chat.tokens import encoded
from gateway.control.pool import Pool
from gateway.errors import GatewayError
from gateway.protocol.anthropic_request import read_message_request
from gateway.protocol.chat_request import ChatRequest, read_chat_request
from gateway.protocol.content_parts import ImagePart
from gateway.protocol.response_request import (
    chat_request_of,
    conversation_of,
    read_response_request,
)
from gateway.relay.outgoing import Incoming
from gateway.routing.ask import prefix_of
from gateway.routing.config import Api
from gateway.routing.prefix_rules import PrefixRules, tokenizer_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

log = logging.getLogger("gateway.routing")

# Of the rendered prompt no more is tokenised than surely holds the tokens that count; longer
# tokens than this are runs of spaces and the like.
CHARS_PER_TOKEN = 16
# A request of this size is rendered and tokenised well within a millisecond.
INLINE_BYTES = 4096
# Which server has the prefix is not worth a longer wait.
MOST_S = 2.0


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """Tokenises the prompts of one model. Thread-safe."""

    tokenizer: Tokenizer
    template: ChatTemplate | None

    def beginning(self, api: Api, document: dict[str, Any], most: int) -> list[int]:
        """The first tokens of a prompt, ``most`` at most; none for a request without one.

        Raises InvalidRequest or PromptTimeout for a prompt that cannot be rendered.
        """
        special = False
        if api == "completions":
            text, special = first_prompt(document), True
        elif self.template is not None:
            text = self._rendered(self.template, chat_of(api, document))
        else:
            return []
        if isinstance(text, list):
            return text[:most]
        ids = encoded(self.tokenizer, text[: most * CHARS_PER_TOKEN], special=special).ids
        return list(ids[:most])

    def _rendered(self, template: ChatTemplate, request: ChatRequest) -> str:
        return template.render(
            [shaped(message) for message in request.messages],
            tools=request.tools,
            add_generation_prompt=request.add_generation_prompt,
            continue_final_message=request.continue_final_message,
            variables=template.effort_variables(request.reasoning_effort)
            | request.template_variables,
        )


def first_prompt(document: dict[str, Any]) -> str | list[int]:
    """The first prompt of a completion, as text or as tokens."""
    prompt = document.get("prompt")
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, list) and all(type(token) is int for token in prompt):
        return prompt
    return prompt if isinstance(prompt, str) else ""


def chat_of(api: Api, document: dict[str, Any]) -> ChatRequest:
    """The conversation of a request in any of the protocols. Raises InvalidRequest."""
    if api == "messages":
        return read_message_request(document).chat
    if api == "responses":
        request = read_response_request(document)
        return chat_request_of(request, conversation_of(request, (), request.input))
    return read_chat_request(document)


def shaped(message: dict[str, Any]) -> dict[str, Any]:
    """A message as chat templates take it; images leave a mark where they are."""
    content = message["content"]
    if not isinstance(content, list):
        return message
    parts = [
        {"type": "image"} if isinstance(part, ImagePart) else {"type": "text", "text": part}
        for part in content
    ]
    return {**message, "content": parts}


def hash_of(ids: list[int], rules: PrefixRules) -> str:
    """A hash of the whole blocks among these tokens; of all, where they fill none."""
    count = min(len(ids), rules.tokens)
    count = count - count % rules.block or count
    if not count:
        return ""
    data = array.array("q", ids[:count]).tobytes()
    return "tokens:" + hashlib.blake2b(data, digest_size=16).hexdigest()


async def prefix_for(pool: Pool, incoming: Incoming) -> str:
    """The key of a request's prefix: from its tokens where the model's tokenizer is known, from
    its characters otherwise; empty for a request without a prompt."""
    rules, document = pool.spec.prefix, incoming.document
    tokens = await tokens_of(pool)
    if tokens is not None and incoming.api != "embeddings":
        try:
            if len(incoming.body) <= INLINE_BYTES:
                ids = tokens.beginning(incoming.api, document, rules.tokens)
            else:
                async with asyncio.timeout(MOST_S):
                    ids = await in_thread(tokens.beginning, incoming.api, document, rules.tokens)
            if key := hash_of(ids, rules):
                return key
        except (GatewayError, OverflowError, TimeoutError) as error:
            # Whoever answers says what is wrong with the request.
            log.debug("no token prefix", extra={"fields": {"cause": type(error).__name__}})
    return prefix_of(document, rules.chars)


async def tokens_of(pool: Pool) -> PromptTokens | None:
    """The tokenizer of a model, where one is known: its own, or else that of an engine here."""
    named = pool.spec.prefix.tokenizer
    if named is not None:
        return _LOADED[named] if named in _LOADED else await soon_loaded(named)
    for replica in pool.replicas:
        if replica.ready:
            prompts = replica.prompts
            return PromptTokens(prompts.info.tokenizer, prompts.template)
    return None


_LOADED: dict[str, PromptTokens | None] = {}
_LOADING: dict[str, asyncio.Task[None]] = {}


async def soon_loaded(named: str) -> PromptTokens | None:
    """A tokenizer that is loaded now; None if that takes longer than a request should wait."""

    async def run() -> None:
        try:
            _LOADED[named] = await asyncio.to_thread(load, named)
        finally:
            del _LOADING[named]

    if named not in _LOADING:
        _LOADING[named] = asyncio.create_task(run())
    await asyncio.wait({_LOADING[named]}, timeout=MOST_S)
    return _LOADED.get(named)


def load(named: str) -> PromptTokens | None:
    """Read a tokenizer and the chat template beside it; None, and a warning, where that fails."""
    from tokenizers import Tokenizer

    from engine.onnx.prepared import chat_template, template_globals

    try:
        file = file_of(named)
        tokenizer = Tokenizer.from_file(str(file))
        config = file.with_name("tokenizer_config.json")
        settings = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
        source = chat_template(file.parent, settings)
        template = ChatTemplate(source, template_globals(settings)) if source else None
        return PromptTokens(tokenizer, template)
    except Exception as error:  # the Rust side raises plain Exception
        fields = {"tokenizer": named, "cause": str(error)}
        log.warning(
            "a tokenizer cannot be used: prefixes go by characters", extra={"fields": fields}
        )
        return None


def file_of(named: str) -> Path:
    """The ``tokenizer.json`` that is meant; one on the hub is fetched with what belongs to it."""
    if named == "bundled":
        from engine.models.find import BundledModel

        return BundledModel().shipped / "tokenizer.json"
    path = Path(named)
    if path.is_absolute():
        return tokenizer_file(path)
    from huggingface_hub import errors, hf_hub_download

    endpoint = os.environ.get("HF_ENDPOINT")
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        with contextlib.suppress(errors.EntryNotFoundError):
            hf_hub_download(named, name, endpoint=endpoint)
    return Path(hf_hub_download(named, "tokenizer.json", endpoint=endpoint))
