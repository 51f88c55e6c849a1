"""A hub id on onnxruntime: what kind of model it is shows once it has been downloaded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

from engine.base import (
    Delta,
    Embedder,
    Embeddings,
    EmbedRequest,
    Engine,
    EngineDead,
    EngineError,
    EngineStartError,
    GenerateRequest,
    Load,
    ModelInfo,
    Progress,
    RequestRejected,
)
from engine.config import EngineConfig
from engine.models.find import HubModel
from engine.onnx_encoder.families import is_encoder


class HubEngine:
    """Downloads the model, then is the OnnxEngine or the OnnxEncoderEngine for it."""

    def __init__(self, config: EngineConfig, place: HubModel) -> None:
        self._config = config
        self._place = place
        self._progress = Progress("created", "not started")
        self._engine: Engine | None = None

    @property
    def info(self) -> ModelInfo:
        if self._engine is None:
            raise EngineError("the engine has not started")
        return self._engine.info

    @property
    def progress(self) -> Progress:
        return self._progress if self._engine is None else self._engine.progress

    async def start(self) -> None:
        if self._progress.state != "created":
            raise EngineStartError("an engine starts once: build a new one")
        self._progress = Progress("loading", "looking for the model", 0.0)
        loop = asyncio.get_running_loop()

        def tell(stage: str, fraction: float | None) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody listens
                loop.call_soon_threadsafe(self._tell, stage, fraction)

        try:
            engine = await asyncio.to_thread(self._choose, tell)
        except BaseException:
            self._progress = Progress("stopped", "the start failed")
            raise
        if self._progress.state == "stopped":
            raise EngineStartError("the engine was stopped while it loaded")
        self._engine = engine
        await engine.start()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        source = self._running().generate(request)
        async with contextlib.aclosing(source) as deltas:
            async for delta in deltas:
                yield delta

    async def embed(self, request: EmbedRequest) -> Embeddings:
        """The vectors, where the model turned out to be an encoder."""
        engine = self._running()
        if not isinstance(engine, Embedder):
            raise RequestRejected("this model makes no embeddings", param="model")
        return await engine.embed(request)

    def load(self) -> Load:
        if self._engine is None:
            return Load(0, 0, 0, 0, self._config.max_num_seqs)
        return self._engine.load()

    async def check_health(self) -> None:
        await self._running().check_health()

    async def stop(self, drain_s: float) -> None:
        if self._engine is not None:
            await self._engine.stop(drain_s)
        else:
            self._progress = Progress("stopped", "stopped")

    def _running(self) -> Engine:
        if self._engine is None:
            raise EngineDead(f"the engine takes no requests ({self._progress.stage})")
        return self._engine

    def _tell(self, stage: str, fraction: float | None) -> None:
        if self._progress.state == "loading":
            self._progress = Progress("loading", stage, fraction)

    def _choose(self, tell: Callable[[str, float | None], None]) -> Engine:
        from engine.models.hub import download

        place = self._place
        folder = download(place.id, place.revision, self._config.cache_dir, tell)
        if is_encoder(folder):
            from engine.onnx_encoder.engine import OnnxEncoderEngine

            return OnnxEncoderEngine(self._config, checkpoint=folder)
        from engine.onnx.engine import OnnxEngine

        return OnnxEngine(self._config)  # finds the same download
