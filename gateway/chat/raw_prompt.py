"""Prompts without a chat template: from text or token ids to what an engine takes.

Text gets the special tokens that the model's own tokenizer puts around it, such as a
beginning-of-sequence token. Everything here runs in threads.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from engine.base import SamplingParams
from engine.detokenize import Detokenizer, TokenDecoder
from gateway.chat.infill import Infill
from gateway.chat.prompt import PromptBuilder, required, unsupported
from gateway.chat.prompt_length import refuse_length, text_offsets, truncated
from gateway.chat.tokens import bad_word_ids, encoded
from gateway.errors import PromptTimeout
from gateway.media.loader import ImageLoader
from gateway.protocol.chat_request import check_token_ids, sampling_params
from gateway.protocol.completion_parameters import DEFAULT_MAX_TOKENS
from gateway.protocol.completion_prompt import PromptValue
from gateway.protocol.completion_request import CompletionRequest, check_totals
from gateway.protocol.token_requests import TokenizeRequest
from gateway.protocol.values import wrong_value

if TYPE_CHECKING:
    from tokenizers import Encoding

PREPARE_TIMEOUT_S = 30.0
T = TypeVar("T")

_POOL = ThreadPoolExecutor(2, thread_name_prefix="raw-prompt")


@dataclass(frozen=True, slots=True)
class RawPrompt:
    """One prompt as the engine takes it.

    Attributes:
        text: the prompt as it is echoed; empty unless it is to be echoed.
        offsets: where each token begins in ``text``, in characters; empty likewise.
    """

    ids: list[int]
    sampling: SamplingParams
    text: str = ""
    offsets: tuple[int, ...] = ()


async def in_thread(work: Callable[..., T], *args: Any) -> T:
    """Run work on text in the threads for it. Raises PromptTimeout."""
    context = contextvars.copy_context()
    loop = asyncio.get_running_loop()
    running = loop.run_in_executor(_POOL, lambda: context.run(work, *args))
    try:
        async with asyncio.timeout(PREPARE_TIMEOUT_S):
            return await running
    except TimeoutError:
        raise PromptTimeout("Preparing the prompt took too long.") from None


class RawPrompts:
    """Tokenises for one model. Thread-safe."""

    def __init__(self, builder: PromptBuilder) -> None:
        self._info = builder.info
        self._template = builder.template
        self._longest_token = builder.longest_token
        self._tokenizer = self._info.tokenizer
        self._detokenizer = Detokenizer(self._tokenizer)
        self._infill = Infill(self._tokenizer)
        self._images = builder.images

    @property
    def max_model_len(self) -> int:
        """The largest prompt plus output, in tokens."""
        return self._info.max_model_len

    def decoder(self, *, skip_special_tokens: bool) -> TokenDecoder:
        """Turns tokens of one text into characters exactly as the engine does."""
        return self._detokenizer.decoder(skip_special_tokens=skip_special_tokens)

    def build(self, request: CompletionRequest) -> list[RawPrompt]:
        """Every prompt of a request, in order. Raises InvalidRequest."""
        self._check_capabilities(request)
        several = len(request.prompts) > 1
        found: list[RawPrompt] = []
        bad_words = bad_word_ids(self._tokenizer, request.bad_words)
        tokens = output = 0
        for index, value in enumerate(request.prompts):
            path = f"prompt[{index}]" if several else "prompt"
            prompt = self._build_one(request, value, path, bad_words)
            tokens += len(prompt.ids)
            output += prompt.sampling.max_tokens * request.n
            check_totals(request, tokens, output)
            found.append(prompt)
        return found

    def chat_ids(self, request: TokenizeRequest) -> list[int]:
        """The tokens of a conversation, of any length. Raises InvalidRequest or PromptTimeout."""
        template = required(self._template)
        if request.tools and not template.knows_tools:
            raise unsupported("tools", "this model's chat template does not know tool calls")
        text = template.render(
            self._images.shaped(request.messages),
            tools=request.tools,
            add_generation_prompt=request.add_generation_prompt,
            continue_final_message=request.continue_final_message,
            variables=request.template_variables,
        )
        ids = list(self.encode(text, add_special_tokens=request.add_special_tokens).ids)
        self._images.check(request.messages, text, ids)
        return ids

    def token_strings(self, ids: list[int]) -> list[str]:
        """The vocabulary's own spelling of each token; empty for ids without one."""
        return [self._tokenizer.id_to_token(token) or "" for token in ids]

    def encode(self, text: str, *, add_special_tokens: bool) -> Encoding:
        """The tokens of a text."""
        return encoded(self._tokenizer, text, special=add_special_tokens)

    def decode(self, ids: list[int]) -> str:
        """The text of token ids, special tokens included."""
        (text,) = self._tokenizer.decode_batch([ids], skip_special_tokens=False)
        return str(text)

    def check_ids(self, ids: list[int], path: str) -> None:
        """Raise InvalidRequest naming the first id that the model does not have."""
        size = self._info.vocab_size
        if max(ids, default=0) >= size:
            index = next(i for i, token in enumerate(ids) if token >= size)
            wrong_value(f"{path}[{index}]", f"token ids must be below {size}")

    def _build_one(
        self,
        request: CompletionRequest,
        value: PromptValue,
        path: str,
        bad_words: tuple[tuple[int, ...], ...],
    ) -> RawPrompt:
        ids, encoding = self._ids(request, value, path)
        limit = self._info.max_model_len
        cut = truncated(ids, request, limit)
        if cut is not ids:
            ids, encoding = cut, None
        if not ids:
            wrong_value(path, "it has no tokens")
        # Scoring needs no place for a token to come; everything else needs one.
        room = limit - len(ids)
        most = request.max_tokens
        if room < (0 if most == 0 else 1) or (most or 0) > room:
            refuse_length(limit, len(ids), most, path)
        max_tokens = min(DEFAULT_MAX_TOKENS, room) if most is None else most
        sampling = sampling_params(
            request,
            max_tokens=max_tokens,
            bad_words=bad_words,
            defaults=self._info.default_sampling,
        )
        sampling = replace(sampling, prompt_logprobs=request.scored)
        if not request.echo:
            return RawPrompt(ids, sampling)
        if isinstance(value, str) and encoding is not None:
            return RawPrompt(ids, sampling, value, text_offsets(encoding))
        return RawPrompt(ids, sampling, *self._spell(ids))

    def _ids(
        self, request: CompletionRequest, value: PromptValue, path: str
    ) -> tuple[list[int], Encoding | None]:
        """Token ids, and the encoding they are from when the prompt is plain text."""
        if isinstance(value, str) and request.suffix is None:
            self._check_size(value, request, path)
            encoding = self.encode(value, add_special_tokens=request.add_special_tokens)
            return encoding.ids, encoding
        if isinstance(value, str):
            self._check_size(value, request, path)
            ids = self.encode(value, add_special_tokens=False).ids
        else:
            ids = list(value)
            self.check_ids(ids, path)
        if request.suffix is None:
            return ids, None
        self._check_size(request.suffix, request, "suffix")
        suffix = self.encode(request.suffix, add_special_tokens=False).ids
        around = self.encode("", add_special_tokens=request.add_special_tokens).ids
        opening = around if isinstance(value, str) else []
        return [*opening, *self._infill.build(ids, suffix)], None

    def _check_size(self, text: str, request: CompletionRequest, path: str) -> None:
        """Refuse a text that is sure to be too long, before the work of tokenising it."""
        limit = self._info.max_model_len
        # No token stands for more bytes than the longest one.
        fewest = len(text.encode()) // self._longest_token
        if fewest > limit and request.truncate is None:
            refuse_length(limit, fewest, None, path, at_least=True)

    def _check_capabilities(self, request: CompletionRequest) -> None:
        capabilities = self._info.capabilities
        check_token_ids(request, self._info.vocab_size)
        if request.suffix is not None and not self._infill.possible:
            raise unsupported("suffix", "this model knows no fill-in-the-middle tokens")
        if request.structured is not None and not capabilities.structured_output:
            raise unsupported(request.structured_field, "this engine cannot enforce it")
        if request.scored is not None and not capabilities.prompt_logprobs:
            name = "prompt_logprobs" if request.prompt_logprobs is not None else "echo"
            raise unsupported(name, "this engine reports no log-probabilities of the prompt")
        for name, asked in (
            ("logprobs", request.logprobs),
            ("prompt_logprobs", request.prompt_logprobs),
        ):
            if asked is not None and asked > capabilities.max_logprobs:
                wrong_value(name, f"this engine reports at most {capabilities.max_logprobs}")

    def _spell(self, ids: list[int]) -> tuple[str, tuple[int, ...]]:
        """The text of a prompt given as ids, and where each token begins in it."""
        decoder = self.decoder(skip_special_tokens=False)
        text, offsets = "", []
        parts: list[str] = []
        size = 0
        for token in ids:
            offsets.append(size)
            part = decoder.push(token)
            parts.append(part)
            size += len(part)
        text = "".join(parts) + decoder.flush()
        return text, tuple(offsets)


async def conversation_ids(
    builder: PromptBuilder, request: TokenizeRequest, media: ImageLoader
) -> list[int]:
    """The tokens of a conversation as the model reads it, those of its images included.

    Raises InvalidRequest or PromptTimeout, and EngineDead where the engine has to prepare images.
    """
    parts = builder.images.of(request.messages)
    raw = await raw_prompts(builder)
    ids = await in_thread(raw.chat_ids, request)
    return (await builder.images.render(ids, parts, media)).prompt_ids if parts else ids


_KNOWN: WeakKeyDictionary[PromptBuilder, RawPrompts] = WeakKeyDictionary()


async def raw_prompts(builder: PromptBuilder) -> RawPrompts:
    """The tokeniser of a model, made once from its prompt builder."""
    found = _KNOWN.get(builder)
    if found is None:
        found = _KNOWN[builder] = await in_thread(RawPrompts, builder)
    return found
