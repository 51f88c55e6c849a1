"""The Engine and Embedder protocols over an encoder graph."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.base import (
    Capabilities,
    Delta,
    Embeddings,
    EmbeddingSpace,
    EmbedRequest,
    EngineStartError,
    GenerateRequest,
    Load,
    ModelInfo,
    RequestRejected,
)
from engine.checks import check_embed_request, check_request
from engine.config import EngineConfig
from engine.life import ThreadedEngine
from engine.onnx.hardware import physical_cores
from engine.onnx_encoder.batcher import MAX_ROWS, Batcher, Job
from engine.onnx_encoder.layout import EncoderModel
from engine.onnx_encoder.session import EncoderSession, finish
from engine.options import read_options

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Checking more tokens than this is felt by other streams, so it moves to a thread.
CHECKED_INLINE = 8192


@dataclass(frozen=True, slots=True)
class EncoderOptions:
    """What ``EngineConfig.options`` may hold for this engine.

    Attributes:
        max_batch_tokens: tokens of one model run, padding included. More is hardly faster on
            a CPU and lets newcomers wait longer.
        max_waiting_tokens: tokens of all waiting requests together.
        matryoshka: let requests shorten the vectors of a model that does not declare to be
            trained for that.
    """

    max_batch_tokens: int = 2048
    max_waiting_tokens: int = 1_000_000
    matryoshka: bool = False

    def __post_init__(self) -> None:
        if not 16 <= self.max_batch_tokens <= 1_000_000:
            raise ValueError("max_batch_tokens must be in [16, 1000000]")
        if not 1024 <= self.max_waiting_tokens <= 100_000_000:
            raise ValueError("max_waiting_tokens must be in [1024, 100000000]")


@dataclass(frozen=True, slots=True)
class _Loaded:
    info: ModelInfo
    session: EncoderSession


class OnnxEncoderEngine(ThreadedEngine[_Loaded, Batcher]):
    """Serves one embedding model on CPU with dynamic batching.

    Args:
        config: what to serve; ``options`` is read as EncoderOptions.
        checkpoint: the model's folder; None: what ``config.model`` names.
    """

    def __init__(self, config: EngineConfig, checkpoint: Path | None = None) -> None:
        super().__init__()
        self._config = config
        self._checkpoint = checkpoint or Path(config.model).expanduser().resolve()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        """Refuses every request: an encoder generates nothing."""
        loaded, _ = self._running()
        check_request(request, loaded.info)
        nothing: tuple[Delta, ...] = ()
        for delta in nothing:
            yield delta

    async def embed(self, request: EmbedRequest) -> Embeddings:
        loaded, batcher = self._running()
        info = loaded.info
        if sum(map(len, request.prompts)) > CHECKED_INLINE:
            prompts = await asyncio.to_thread(_checked, request, info)
        else:
            prompts = _checked(request, info)
        assert info.embedding is not None
        normalize = info.embedding.normalized if request.normalize is None else request.normalize
        if info.embedding.normalized and not normalize and not loaded.session.pools:
            raise RequestRejected("this model's graph normalises by itself", param="use_activation")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Embeddings] = loop.create_future()

        def done(job: Job, error: Exception | None) -> None:
            found: Embeddings | Exception
            if error is None:
                rows = np.stack([row for row in job.rows if row is not None])
                vectors = finish(rows, request.dimensions, normalize=normalize)
                found = Embeddings(vectors, job.queue_s or 0.0)
            else:
                found = error
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits
                loop.call_soon_threadsafe(_settle, answer, found)

        job = Job(prompts, request.priority, done)
        batcher.submit(job)
        try:
            return await answer
        except asyncio.CancelledError:
            batcher.abort(job)
            raise

    def load(self) -> Load:
        batcher = self._worker
        if batcher is None or self._is("dead"):
            return Load(0, 0, 0, 0, MAX_ROWS)
        waiting, running = batcher.counts()
        return Load(waiting, running, 0, 0, MAX_ROWS)

    def _prepare(self) -> Path:
        from engine.models.convert_encoder import prepare_encoder

        label = self._config.names[0].replace("/", "--")
        return prepare_encoder(self._checkpoint, label, self._config, self._tell)

    def _load(self) -> tuple[_Loaded, Callable[[], Batcher]]:
        options = read_options(EncoderOptions, self._config.options)
        model = EncoderModel.read(self._prepare())
        self._tell("loading the weights", 0.5)
        try:
            session = EncoderSession(model, self._config.threads or physical_cores())
            self._tell("warming up", 0.9)
            dimension = session.probe()
        except MemoryError as error:
            raise EngineStartError(
                f"there is not enough memory for {model.folder} ({error}): take a smaller model "
                "or ONNX_PRECISION=int8"
            ) from error
        if session.pools and dimension != model.hidden_size:
            raise EngineStartError(
                f"{model.graph} gives vectors of {dimension}, {model.folder}/config.json says "
                f"{model.hidden_size}: they do not belong together"
            )
        space = replace(model.space, dimension=dimension)
        if options.matryoshka and space.shortened is not None and not space.shortened:
            space = replace(space, shortened=None)

        def batcher() -> Batcher:
            return Batcher(
                session.run,
                max_batch_tokens=options.max_batch_tokens,
                max_waiting=self._config.max_waiting,
                max_waiting_tokens=options.max_waiting_tokens,
                on_death=self._die,
            )

        return _Loaded(_model_info(model, self._config, space), session), batcher


def _checked(request: EmbedRequest, info: ModelInfo) -> list[NDArray[np.int32]]:
    """The prompts as arrays; raises RequestRejected."""
    check_embed_request(request, info)
    return [np.asarray(prompt, np.int32) for prompt in request.prompts]


def _settle(future: asyncio.Future[Embeddings], found: Embeddings | Exception) -> None:
    if future.done():
        return
    if isinstance(found, Exception):
        future.set_exception(found)
    else:
        future.set_result(found)


def _model_info(model: EncoderModel, config: EngineConfig, space: EmbeddingSpace) -> ModelInfo:
    longest = model.max_model_len
    names = config.names
    return ModelInfo(
        id=names[0],
        aliases=tuple(names[1:]),
        source=config.model,
        max_model_len=min(longest, config.max_model_len or longest),
        vocab_size=model.vocab_size,
        tokenizer=model.tokenizer,
        chat_template=None,
        template_globals={},
        eos_token_ids=frozenset(),
        created=int(time.time()),
        engine="onnx",
        quantization="none" if model.precision == "fp32" else model.precision,
        device="cpu",
        dtype="float32",
        capabilities=Capabilities(
            prompt_logprobs=False, embeddings=True, generation=False, max_logprobs=0
        ),
        embedding=space,
    )
