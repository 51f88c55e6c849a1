"""From a checked request to prompt ids and sampling options, off the event loop."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from engine.base import ModelInfo, SamplingParams
from gateway.chat.template import ChatTemplate
from gateway.chat.tokens import TokenTexts
from gateway.errors import InvalidRequest, PromptTimeout
from gateway.protocol.chat_request import ChatRequest, check_token_ids, sampling_params

PREPARE_TIMEOUT_S = 30.0
THREADS = 2


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine needs to know of a request."""

    ids: list[int]
    sampling: SamplingParams


class PromptBuilder:
    """Renders and tokenises the prompts of one model in its own small thread pool."""

    def __init__(self, info: ModelInfo) -> None:
        self._info = info
        self._template = (
            ChatTemplate(info.chat_template, info.template_globals) if info.chat_template else None
        )
        self._longest_token = max(
            (len(token.encode()) for token in info.tokenizer.get_vocab()), default=1
        )
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="prompt")
        self.texts = TokenTexts(info.tokenizer)

    @property
    def hermes_tool_calls(self) -> bool:
        """Whether the model writes tool calls as ``<tool_call>`` blocks."""
        return self._template is not None and self._template.hermes_tool_calls

    async def build(self, request: ChatRequest) -> Prompt:
        """Prompt ids and sampling options.

        Raises InvalidRequest, with code ``context_length_exceeded`` when prompt and output
        cannot fit, or PromptTimeout.
        """
        self._check_capabilities(request)
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._pool, context.run, self._build, request)
        try:
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                return await work
        except TimeoutError:
            raise PromptTimeout("Preparing the prompt took too long.") from None

    def close(self) -> None:
        """End the threads without waiting for work nobody wants any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check_capabilities(self, request: ChatRequest) -> None:
        """Refuse what this model or engine cannot do, before any work."""
        capabilities = self._info.capabilities
        check_token_ids(request, self._info.vocab_size)
        if request.prompt_logprobs is not None and not capabilities.prompt_logprobs:
            raise unsupported("prompt_logprobs", "this engine cannot report them")
        if request.structured is not None and not capabilities.structured_output:
            raise unsupported(
                "response_format", "this engine cannot enforce it; ask for JSON in the prompt"
            )
        for name, asked in (
            ("top_logprobs", request.logprobs),
            ("prompt_logprobs", request.prompt_logprobs),
        ):
            if asked is not None and asked > capabilities.max_logprobs:
                raise InvalidRequest(
                    f"Invalid '{name}': this engine reports at most {capabilities.max_logprobs}.",
                    param=name,
                )

    def _build(self, request: ChatRequest) -> Prompt:
        template = self._template
        if template is None:
            raise InvalidRequest(
                "This model has no chat template, so it cannot take messages.",
                param="messages",
                code="no_chat_template",
            )
        if request.tools and not (template.knows_tools and template.hermes_tool_calls):
            raise unsupported("tools", "this model's chat template does not know tool calls")
        text = template.render(
            request.messages,
            tools=request.tools,
            add_generation_prompt=request.add_generation_prompt,
            continue_final_message=request.continue_final_message,
            variables=request.template_variables,
        )
        limit = self._info.max_model_len
        # No token stands for more bytes than the longest one: sure to be too long.
        fewest = len(text.encode()) // self._longest_token
        if fewest > limit:
            raise too_long(limit, fewest, None, request, at_least=True)
        ids: list[int] = self._info.tokenizer.encode(text, add_special_tokens=False).ids
        if not ids:
            raise InvalidRequest("The messages render to an empty prompt.", param="messages")
        room = limit - len(ids)
        if room < 1 or (request.max_tokens is not None and request.max_tokens > room):
            raise too_long(limit, len(ids), request.max_tokens, request)
        max_tokens = request.max_tokens or room
        return Prompt(
            ids,
            sampling_params(
                request,
                max_tokens=max_tokens,
                bad_words=self._bad_words(request),
                defaults=self._info.default_sampling,
            ),
        )

    def _bad_words(self, request: ChatRequest) -> tuple[tuple[int, ...], ...]:
        """Token sequences of each word, at the start of a text and after a space, as in vLLM."""
        sequences: list[tuple[int, ...]] = []
        for word in request.bad_words:
            bare = self._encode(word.lstrip())
            spaced = self._encode(" " + word.lstrip())
            if bare:
                sequences.append(bare)
            if spaced and len(spaced) == len(bare) and spaced[0] != bare[0]:
                sequences.append(spaced)
        return tuple(sequences)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._info.tokenizer.encode(text, add_special_tokens=False).ids)


def unsupported(name: str, why: str) -> InvalidRequest:
    """The error for a field that this model or engine cannot honour."""
    return InvalidRequest(
        f"'{name}' is not supported: {why}.", param=name, code="unsupported_parameter"
    )


def too_long(
    limit: int, prompt: int, output: int | None, request: ChatRequest, *, at_least: bool = False
) -> InvalidRequest:
    """The context-length error in OpenAI's words."""
    about = "at least " if at_least else ""
    if output is None:
        message = (
            f"This model's maximum context length is {limit} tokens. However, your messages "
            f"resulted in {about}{prompt} tokens. Please reduce the length of the messages."
        )
        param = "messages"
    else:
        message = (
            f"This model's maximum context length is {limit} tokens. However, you requested "
            f"{prompt + output} tokens ({prompt} in the messages, {output} in the completion). "
            "Please reduce the length of the messages or completion."
        )
        param = request.max_tokens_field if prompt < limit else "messages"
    return InvalidRequest(message, param=param, code="context_length_exceeded")
