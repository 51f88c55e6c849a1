"""From a checked request to prompt ids and sampling options, off the event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from engine.base import ImageRenderer, ModelInfo, SamplingParams, StructuredOutput
from gateway.chat.answer_constraint import AnswerConstraint
from gateway.chat.image_prompts import ImagePrompts
from gateway.chat.output import OutputPlan
from gateway.chat.parsing import REASONING_FORMATS, detect, spelled
from gateway.chat.template import ChatTemplate
from gateway.chat.tokens import TokenTexts, bad_word_ids, encoded
from gateway.errors import InvalidRequest, PromptTimeout
from gateway.media.loader import ImageLoader
from gateway.protocol.chat_request import ChatRequest, check_token_ids, sampling_params

PREPARE_TIMEOUT_S = 30.0
THREADS = 2
# Of the rendered prompt, what is kept to see whether it leaves the thinking open.
PROMPT_END_CHARS = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What an engine needs to know of a request, and how its output is to be read.

    Attributes:
        constrained_by: the request field that the constraint on the output comes from.
        images: for ``GenerateRequest.images``.
    """

    ids: list[int]
    sampling: SamplingParams
    output: OutputPlan
    constrained_by: str | None = None
    images: tuple[Any, ...] = ()


class PromptBuilder:
    """Renders and tokenises the prompts of one model in its own small thread pool.

    Args:
        tool_parser, reasoning_parser: names of formats that override what the chat template
            tells; empty: none; ``none``: off.
        renderer: prepares images, for a model that takes them.

    Attributes:
        images: of the prompts.
        template: None for a model without one; see ``required``.
        longest_token: bytes of the vocabulary's longest token.

    Raises ValueError for a name that is no format.
    """

    def __init__(
        self,
        info: ModelInfo,
        *,
        tool_parser: str = "",
        reasoning_parser: str = "",
        renderer: ImageRenderer | None = None,
    ) -> None:
        self.info = info
        self.template = (
            ChatTemplate(info.chat_template, info.template_globals) if info.chat_template else None
        )
        added = info.tokenizer.get_added_tokens_decoder()
        self._special = {token.content: i for i, token in added.items() if token.special}
        self.formats = detect(
            info.chat_template,
            special_tokens=self._special,
            model=f"{info.id}\n{info.source}",
            tool=tool_parser,
            reasoning=reasoning_parser,
        )
        ids = {token.content: i for i, token in added.items()}
        self._constraint = AnswerConstraint(
            self.formats, ids, opens_thinking=self._opens_thinking()
        )
        thinking = REASONING_FORMATS.get(self.formats.reasoning or "")
        closes = thinking.closes if thinking is not None else ()
        self._closing_ids = frozenset(ids[text] for text in closes if text in ids)
        self.longest_token = max(
            (len(token.encode()) for token in info.tokenizer.get_vocab()), default=1
        )
        self.images = ImagePrompts(info, self.template, renderer)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="prompt")
        self.texts = TokenTexts(info.tokenizer)

    async def build(self, request: ChatRequest, media: ImageLoader | None = None) -> Prompt:
        """Prompt ids and sampling options. ``media`` loads the images of the messages.

        Raises InvalidRequest, with code ``context_length_exceeded`` when prompt and output
        cannot fit, or PromptTimeout; EngineDead where the engine has to prepare images.
        """
        self._check_capabilities(request)
        parts = self.images.of(request.messages)
        try:
            async with asyncio.timeout(PREPARE_TIMEOUT_S):
                if not parts or media is None:
                    return await self._in_thread(self._build, request)
                text, ids = await self._in_thread(self._spell, request)
                rendered = await self.images.render(ids, parts, media)
                ids, images = rendered.prompt_ids, rendered.images
                return await self._in_thread(self._finish, request, text, ids, images)
        except TimeoutError:
            raise PromptTimeout("Preparing the prompt took too long.") from None

    async def _in_thread(self, work: Callable[..., T], *args: Any) -> T:
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: context.run(work, *args))

    def close(self) -> None:
        """End the threads without waiting for work nobody wants any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _check_capabilities(self, request: ChatRequest) -> None:
        """Refuse what this model or engine cannot do, before any work."""
        capabilities = self.info.capabilities
        check_token_ids(request, self.info.vocab_size)
        if request.prompt_logprobs is not None and not capabilities.prompt_logprobs:
            raise unsupported("prompt_logprobs", "this engine cannot report them")
        if not capabilities.structured_output:
            if request.structured is not None:
                raise unsupported(
                    request.structured_field,
                    "this engine cannot enforce it; ask for JSON in the prompt",
                )
            if request.tool_choice.mode in ("required", "named"):
                raise unsupported("tool_choice", "this engine cannot enforce it; use 'auto'")
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
        return self._finish(request, *self._spell(request))

    def _spell(self, request: ChatRequest) -> tuple[str, list[int]]:
        """The prompt as text and as tokens, with one placeholder per image."""
        template = required(self.template)
        if request.tools and not (template.knows_tools and self.formats.tool):
            raise unsupported("tools", "this model's chat template does not know tool calls")
        text = template.render(
            self.images.shaped(request.messages),
            tools=request.tools,
            add_generation_prompt=request.add_generation_prompt,
            continue_final_message=request.continue_final_message,
            variables=template.effort_variables(request.reasoning_effort)
            | request.template_variables,
        )
        limit = self.info.max_model_len
        # No token stands for more bytes than the longest one: sure to be too long.
        fewest = len(text.encode()) // self.longest_token
        if fewest > limit:
            raise too_long(limit, fewest, None, request, at_least=True)
        ids: list[int] = encoded(self.info.tokenizer, text).ids
        if not ids:
            raise InvalidRequest("The messages render to an empty prompt.", param="messages")
        self.images.check(request.messages, text, ids)
        return text, ids

    def _finish(
        self, request: ChatRequest, text: str, ids: list[int], images: tuple[Any, ...] = ()
    ) -> Prompt:
        """The prompt for an engine, its images included, within the context."""
        limit = self.info.max_model_len
        room = limit - len(ids)
        if room < 1 or (request.max_tokens is not None and request.max_tokens > room):
            raise too_long(limit, len(ids), request.max_tokens, request)
        prompt_end = text[-PROMPT_END_CHARS:]
        structured, constrained_by = self._structured(request, prompt_end)
        sampling = sampling_params(
            request,
            max_tokens=request.max_tokens or room,
            bad_words=bad_word_ids(self.info.tokenizer, request.bad_words),
            defaults=self.info.default_sampling,
        )
        plan = self._plan(request, prompt_end)
        return Prompt(
            ids,
            replace(sampling, structured=structured, shown_special_ids=self._shown(plan)),
            plan,
            constrained_by,
            images,
        )

    def _structured(
        self, request: ChatRequest, prompt_end: str
    ) -> tuple[StructuredOutput | None, str | None]:
        if not self.info.capabilities.structured_output:
            return None, None
        return self._constraint.of(request, prompt_end)

    def _plan(self, request: ChatRequest, prompt_end: str) -> OutputPlan:
        tools = None
        if request.tools:
            functions = [tool["function"] for tool in request.tools]
            tools = {function["name"]: function.get("parameters", {}) for function in functions}
        return OutputPlan(
            self.formats,
            tools=tools,
            prompt_end=prompt_end,
            parallel=request.parallel_tool_calls,
            named=request.tool_choice.mode == "named",
            show_reasoning=request.include_reasoning,
            closing_ids=self._closing_ids,
        )

    def _shown(self, plan: OutputPlan) -> tuple[int, ...]:
        """Special tokens that the reader of the output has to see."""
        if plan.is_plain:
            return ()
        markers = spelled(self.formats, tools=plan.tools is not None)
        return tuple(i for text, i in self._special.items() if text in markers)

    def _opens_thinking(self) -> bool:
        """Whether the template itself opens the thinking where it is asked for."""
        if self.template is None or not self.template.knows_enable_thinking:
            return False
        try:
            text = self.template.render(
                [{"role": "user", "content": "x"}],
                tools=[],
                add_generation_prompt=True,
                continue_final_message=False,
                variables={"enable_thinking": True},
            )
        except (InvalidRequest, PromptTimeout):
            return False
        return text.rstrip().endswith("<think>")


def required(template: ChatTemplate | None) -> ChatTemplate:
    """The model's chat template. Raises InvalidRequest for a model without one."""
    if template is None:
        raise InvalidRequest(
            "This model has no chat template, so it cannot take messages.",
            param="messages",
            code="no_chat_template",
        )
    return template


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
