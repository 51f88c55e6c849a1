"""The Engine and Embedder protocols over an encoder graph."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
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
    EngineDead,
    EngineError,
    EngineStartError,
    EngineState,
    GenerateRequest,
    Load,
    ModelInfo,
    Progress,
    RequestRejected,
)
from engine.checks import check_embed_request, check_request
from engine.config import EngineConfig
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
    options: EncoderOptions


class OnnxEncoderEngine:
    """Serves one embedding model on CPU with dynamic batching.

    Args:
        config: what to serve; ``options`` is read as EncoderOptions.
        checkpoint: the model's folder; None: what ``config.model`` names.
    """

    def __init__(self, config: EngineConfig, checkpoint: Path | None = None) -> None:
        self._config = config
        self._checkpoint = checkpoint or Path(config.model).expanduser().resolve()
        self._progress = Progress("created", "not started")
        self._loaded: _Loaded | None = None
        self._batcher: Batcher | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None

    @property
    def info(self) -> ModelInfo:
        if self._loaded is None:
            raise EngineError("the engine has not started")
        return self._loaded.info

    @property
    def progress(self) -> Progress:
        return self._progress

    async def start(self) -> None:
        if self._progress.state != "created":
            raise EngineStartError(
                f"this engine is {self._progress.state}: an engine starts once, build a new one"
            )
        self._event_loop = asyncio.get_running_loop()
        self._report("loading", "looking for the model", 0.0)
        try:
            loaded = await asyncio.to_thread(self._load)
        except BaseException:
            self._report("stopped", "the start failed")
            raise
        if self._is("stopped"):
            raise EngineStartError("the engine was stopped while it loaded")
        self._loaded = loaded
        self._batcher = Batcher(
            loaded.session.run,
            max_batch_tokens=loaded.options.max_batch_tokens,
            max_waiting=self._config.max_waiting,
            max_waiting_tokens=loaded.options.max_waiting_tokens,
            on_death=self._die,
        )
        self._batcher.start()
        self._report("ready", "ready", 1.0)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        """Refuses every request: an encoder generates nothing."""
        self._running_batcher()
        check_request(request, self.info)
        nothing: tuple[Delta, ...] = ()
        for delta in nothing:
            yield delta

    async def embed(self, request: EmbedRequest) -> Embeddings:
        batcher = self._running_batcher()
        assert self._loaded is not None
        info = self._loaded.info
        if sum(map(len, request.prompts)) > CHECKED_INLINE:
            prompts = await asyncio.to_thread(_checked, request, info)
        else:
            prompts = _checked(request, info)
        assert info.embedding is not None
        normalize = info.embedding.normalized if request.normalize is None else request.normalize
        if info.embedding.normalized and not normalize and not self._loaded.session.pools:
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
        batcher = self._batcher
        if batcher is None or self._is("dead"):
            return Load(0, 0, 0, 0, MAX_ROWS)
        waiting, running = batcher.counts()
        return Load(waiting, running, 0, 0, MAX_ROWS)

    async def check_health(self) -> None:
        if self._is("dead"):
            raise EngineDead("the engine died")
        if self._is("stopped"):
            raise EngineDead("the engine is stopped")

    async def stop(self, drain_s: float) -> None:
        batcher = self._batcher
        if batcher is not None:
            if self._is("ready"):
                self._report("draining", "letting running requests finish")
            batcher.drain()
            await asyncio.to_thread(batcher.join, drain_s)
            batcher.end()
            await asyncio.to_thread(batcher.join)
            self._batcher = None
        if not self._is("dead"):
            self._report("stopped", "stopped")

    def _running_batcher(self) -> Batcher:
        if self._is("dead"):
            raise EngineDead("the engine died")
        if self._loaded is None:
            raise EngineError("the engine has not started")
        if self._batcher is None or not self._is("ready"):
            raise EngineDead("the engine is stopping and takes no new requests")
        return self._batcher

    def _is(self, state: EngineState) -> bool:
        return self._progress.state == state

    def _die(self) -> None:
        self._report("dead", "the engine died; its log says why")

    def _report(self, state: EngineState, stage: str, fraction: float | None = None) -> None:
        self._progress = Progress(state, stage, fraction)

    def _tell(self, stage: str, fraction: float | None) -> None:
        """Report progress from the loading thread."""

        def report() -> None:
            if self._is("loading"):
                self._report("loading", stage, fraction)

        assert self._event_loop is not None
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens
            self._event_loop.call_soon_threadsafe(report)

    def _prepare(self) -> Path:
        from engine.models.convert_encoder import prepare_encoder

        label = self._config.names[0].replace("/", "--")
        return prepare_encoder(self._checkpoint, label, self._config, self._tell)

    def _load(self) -> _Loaded:
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
        return _Loaded(_model_info(model, self._config, space), session, options)


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
