"""The seam between the gateway and whatever generates tokens.

An engine takes prompt token ids with sampling options and yields deltas. It knows
nothing of HTTP, chat formats or keys; the gateway knows nothing of batching or KV memory.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer

FinishReason = Literal["stop", "length", "abort"]
EngineState = Literal["created", "loading", "ready", "draining", "dead", "stopped"]


class EngineError(Exception):
    """Base of everything an engine raises on purpose."""


class EngineDead(EngineError):
    """The engine can serve nothing any more; only a new engine can.

    Deltas yielded before it was raised are valid: prompt plus those tokens is the exact
    state from which another engine can carry the generation on.
    """


class EngineOverloaded(EngineError):
    """The waiting queue is full; the same request may succeed later."""


class EngineStartError(EngineError):
    """The engine could not start. The message names the cause and the fix."""


class RequestRejected(EngineError):
    """This request can never succeed on this engine. Raised before any work is done, unless only
    the work shows it, as when options leave no token to choose.

    Attributes:
        param: the request field at fault, in OpenAI's spelling, or None.
        code: OpenAI's error code string, such as ``context_length_exceeded``.
    """

    def __init__(self, message: str, *, param: str | None = None, code: str = "invalid_value"):
        super().__init__(message)
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine honours beyond plain generation; the gateway refuses the rest."""

    prompt_logprobs: bool = True
    structured_output: bool = False
    lora: bool = False
    images: bool = False
    embeddings: bool = False
    max_logprobs: int = 20
    generation: bool = True


@dataclass(frozen=True, slots=True)
class EmbeddingSpace:
    """The vectors that an embedding model makes.

    Attributes:
        dimension: floats per vector.
        normalized: whether vectors have length 1 unless a request says otherwise.
        shortened: lengths that a vector may be cut to: every one from 1 to ``dimension``
            (None, a Matryoshka model that names none), or these. Empty for a model that was
            not trained for it.
    """

    dimension: int
    normalized: bool
    shortened: frozenset[int] | None = frozenset()

    def allows(self, dimensions: int) -> bool:
        """Whether vectors of this length are worth having."""
        if dimensions == self.dimension:
            return True
        within = 0 < dimensions < self.dimension
        return within and (self.shortened is None or dimensions in self.shortened)


@dataclass(frozen=True, slots=True)
class ImageSupport:
    """How a model takes images.

    Attributes:
        placeholder: the text that stands for an image in a prompt, where the chat template
            has none of its own; ``{}`` in it is the image's number, from 1. Empty when the
            model wants no text for an image.
        token_ids: tokens that stand for a part of an image or video. In a prompt they come
            from placeholders only.
        most: images in one prompt, or None for any number.
    """

    placeholder: str
    token_ids: frozenset[int]
    most: int | None = None


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the gateway must know of a loaded model. Valid once ``start`` has returned.

    Attributes:
        id: the name answered in ``model``; ``aliases`` are accepted as well.
        source: what was asked for: a folder, a hub id, or ``bundled``.
        max_model_len: largest prompt plus output, in tokens.
        vocab_size: number of rows of the logits; token ids are below it.
        tokenizer: a ``tokenizers.Tokenizer``; the engine encodes nothing itself.
        chat_template: Jinja source, or None for a model without one.
        template_globals: names a chat template may use, such as ``bos_token``.
        eos_token_ids: ids that end a generation unless ``ignore_eos``.
        created: Unix seconds.
        engine, quantization, device, dtype: for people: logs, ``/version``, metrics.
        default_sampling: what the model's authors recommend, under SamplingParams' names;
            used where a request does not say.
        embedding: set for models with ``capabilities.embeddings``; their engine is an
            ``Embedder`` as well.
        images: set for models with ``capabilities.images``; their engine is an
            ``ImageRenderer`` as well.
    """

    id: str
    aliases: tuple[str, ...]
    source: str
    max_model_len: int
    vocab_size: int
    tokenizer: Tokenizer
    chat_template: str | None
    template_globals: Mapping[str, str]
    eos_token_ids: frozenset[int]
    created: int
    engine: str
    quantization: str
    device: str
    dtype: str
    capabilities: Capabilities = field(default_factory=Capabilities)
    default_sampling: Mapping[str, float] = field(default_factory=dict)
    embedding: EmbeddingSpace | None = None
    images: ImageSupport | None = None


@dataclass(frozen=True, slots=True)
class StructuredOutput:
    """A constraint on the output: exactly one of the fields is set.

    ``json_schema`` is a JSON Schema as a JSON string; ``grammar`` is Lark as llguidance
    reads it; ``json_object`` means any JSON object.
    """

    json_schema: str | None = None
    json_object: bool = False
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    grammar: str | None = None


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens. Names and meaning follow OpenAI's API and vLLM's extensions.

    Attributes:
        max_tokens: most output tokens per choice; the gateway always sets it.
        temperature: 0 is greedy.
        top_k: 0 turns it off. top_p: 1 turns it off. min_p: 0 turns it off.
        repetition_penalty: above 1 discourages tokens of prompt and output (CTRL, 2019);
            presence and frequency penalties count output tokens only.
        logit_bias: token id to additive bias in [-100, 100].
        bad_words: token id sequences that must not appear in the output.
        allowed_token_ids: when set, no other token may be chosen.
        seed: same seed and prompt give the same tokens, whatever else is in the batch;
            choice ``i`` of ``n`` draws from an own stream derived from the seed.
        stop: strings that end the output; excluded from it unless
            ``include_stop_str_in_output``.
        min_tokens: neither end-of-sequence nor stops count before this many tokens.
        shown_special_ids: special tokens whose text is kept although ``skip_special_tokens``:
            the markers that the gateway reads.
        logprobs: number of alternatives per output token (0: the chosen one only), or None.
        prompt_logprobs: the same per prompt token, or None.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    bad_words: tuple[tuple[int, ...], ...] = ()
    allowed_token_ids: tuple[int, ...] | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    include_stop_str_in_output: bool = False
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    shown_special_ids: tuple[int, ...] = ()
    n: int = 1
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    structured: StructuredOutput | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Output that another engine made for this request before it died; ``n`` is 1 then.

    The tokens count as output for stops, penalties, ``min_tokens``, ``max_tokens`` and
    seeded draws, exactly as if this engine had made them. Deltas hold only what is new.

    Attributes:
        token_ids: the choice's output so far.
        text_sent: characters of its text that were already yielded; text that was held
            back by the dead engine is yielded by this one.
        index: the choice's index in the original request, repeated on every delta.
    """

    token_ids: tuple[int, ...]
    text_sent: int
    index: int = 0


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One prompt and how to continue it.

    Attributes:
        request_id: unique among live requests; appears in logs.
        prompt_ids: token ids, at least one.
        cache_salt: requests share cached prefixes only under an equal salt, so that one
            tenant cannot time another's cache (CVE-2025-46570).
        priority: lower runs earlier; equal runs in order of arrival.
        lora: name of a loaded adapter, or None.
        images: what ``ImageRenderer.render_images`` made of the images, in prompt order;
            ``prompt_ids`` are those that came with it.
        resume: where a generation that another engine began is to be carried on.
    """

    request_id: str
    prompt_ids: Sequence[int]
    sampling: SamplingParams
    cache_salt: str | None = None
    priority: int = 0
    lora: str | None = None
    images: tuple[Any, ...] = ()
    resume: Resume | None = None


@dataclass(frozen=True, slots=True)
class RenderedImages:
    """A prompt in which every image has the tokens that the model reads it from.

    Attributes:
        prompt_ids: the whole prompt.
        images: for ``GenerateRequest.images``; engines of the same model understand it.
    """

    prompt_ids: list[int]
    images: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Prompts to turn into one vector each.

    Attributes:
        request_id: unique among live requests; appears in logs.
        prompts: token ids of each prompt, special tokens included; at least one prompt, none
            empty, none longer than ``max_model_len``.
        dimensions: length to cut the vectors to, or None for all of them.
        normalize: whether vectors get length 1; None leaves it to the model.
        priority: lower runs earlier; equal requests share the engine fairly.
    """

    request_id: str
    prompts: Sequence[Sequence[int]]
    dimensions: int | None = None
    normalize: bool | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What became of an EmbedRequest.

    Attributes:
        vectors: float32 [prompts, dimensions], in the order of the prompts.
        queue_s: seconds the request waited before work on it began.
    """

    vectors: NDArray[np.float32]
    queue_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log-probability of one token and its most likely alternatives, likeliest first.

    Values are natural logarithms of the model's own distribution, before temperature,
    penalties and filters (vLLM's ``raw_logprobs``). ``top`` holds (token id, logprob).
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True)
class Delta:
    """New output of one choice since the delta before it.

    Attributes:
        index: which of the ``n`` choices.
        token_ids: new tokens, including ones whose text is still held back.
        text: new text; may be empty while a character or a possible stop string is open.
            After a stop string the text ends right before it.
        logprobs: one per entry of ``token_ids``, when asked for.
        finish_reason: set on the last delta of the choice.
        stop_reason: the stop string or stop token id that ended it; None for
            end-of-sequence and length.
        prompt_logprobs: on the first delta only, when asked for: one entry per prompt
            token, the first None.
        cached_tokens: prompt tokens taken from the prefix cache; same on every delta.
        queue_s: seconds the request waited before its prefill began.
    """

    index: int
    token_ids: list[int]
    text: str
    logprobs: list[TokenLogprob] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    prompt_logprobs: list[TokenLogprob | None] | None = None
    cached_tokens: int = 0
    queue_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine holds now. KV figures are tokens.

    ``preemptions``, ``prefix_queries``, ``prefix_hits`` (tokens) and what concerns speculative
    decoding count since start.
    """

    waiting: int
    running: int
    kv_used: int
    kv_total: int
    max_running: int
    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    drafts: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a start is: a stage for people and a fraction in [0, 1] where known."""

    state: EngineState
    stage: str
    fraction: float | None = None


@runtime_checkable
class Engine(Protocol):
    """One model behind one queue. All coroutines run on the server's event loop."""

    @property
    def info(self) -> ModelInfo:
        """The loaded model. Raises EngineError before ``start`` has returned."""

    @property
    def progress(self) -> Progress:
        """Where the engine stands; never blocks."""

    async def start(self) -> None:
        """Load the model off the event loop; may take minutes.

        Raises EngineStartError with the cause and the fix, leaving nothing behind.
        """

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        """Yield deltas until every choice has finished.

        Work starts at the first ``__anext__``. Closing the generator, or cancelling the
        task that awaits it, aborts the work in every phase and frees its KV at once.
        When the consumer is slow, deltas of one choice are merged, never dropped.

        Raises (at the first ``__anext__``): RequestRejected, EngineOverloaded.
        Raises (at any time): EngineDead.
        """

    def load(self) -> Load:
        """A consistent snapshot; never blocks."""

    async def check_health(self) -> None:
        """Raise EngineDead when the engine can serve nothing any more."""

    async def stop(self, drain_s: float) -> None:
        """Let running requests finish for up to ``drain_s`` seconds, then end them with
        ``abort`` and free everything. Idempotent."""


@runtime_checkable
class Embedder(Protocol):
    """What an engine also is when its ``capabilities.embeddings`` is set."""

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """The vectors of all prompts.

        A vector does not depend on what else the engine works on, beyond rounding. Cancelling
        the task that awaits this aborts the work in every phase.

        Raises: RequestRejected and EngineOverloaded before any work; EngineDead at any time.
        """


@runtime_checkable
class ImageRenderer(Protocol):
    """What an engine also is when its ``capabilities.images`` is set."""

    async def render_images(
        self, prompt_ids: Sequence[int], images: Sequence[Any]
    ) -> RenderedImages:
        """Prepare a prompt with images; holds nothing in the engine.

        Args:
            prompt_ids: with one placeholder per image.
            images: ``PIL.Image.Image`` in mode RGB, in prompt order.

        Raises: RequestRejected for images that the model cannot take; EngineDead.
        """
