"""vLLM's pooling models as embedders of the seam: the same life as VllmEngine, other work."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.base import (
    Capabilities,
    Delta,
    Embeddings,
    EmbeddingSpace,
    EmbedRequest,
    EngineDead,
    EngineError,
    EngineOverloaded,
    EngineStartError,
    GenerateRequest,
    ModelInfo,
)
from engine.checks import check_embed_request, check_request
from engine.config import EngineConfig
from engine.onnx_encoder.families import is_encoder
from engine.vllm import compat, describe
from engine.vllm.build import Built
from engine.vllm.engine import VllmEngine
from engine.vllm.hardware import Hardware, detect

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Prompts of one request that vLLM holds at a time, as a multiple of what runs together: enough
# to keep it busy, and few enough that others are not behind thousands.
_WINDOW = 2


class VllmPoolingEngine(VllmEngine):
    """One embedding model on vLLM. What runs together is vLLM's own scheduler's choice."""

    def __init__(self, config: EngineConfig, hardware: Callable[[], Hardware] = detect) -> None:
        # An encoder keeps no KV cache, and vLLM 0.32 does not start when told to reuse one.
        if is_encoder(Path(config.model).expanduser()):
            options = dataclasses.replace(config.vllm, enable_prefix_caching=False)
            config = dataclasses.replace(config, vllm=options)
        super().__init__(config, hardware)
        self._embedding = 0

    async def _finish_start(self, built: Built) -> None:
        tasks = await built.llm.get_supported_tasks()
        if "embed" not in tasks:
            raise EngineStartError(
                f"{self._config.model} makes no embeddings (vLLM offers: {', '.join(tasks)})"
            )
        info = describe.model_info(self._config, built.llm, built.label, built.device, ())
        self._info = as_embedder(info, built.llm.vllm_config.model_config)
        self._stage("making a first vector")
        await self._vectors(built, EmbedRequest("first-vector", [[0]]))

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        """Refuses every request: a pooling model generates nothing."""
        check_request(request, self.info)
        nothing: tuple[Delta, ...] = ()
        for delta in nothing:
            yield delta

    async def embed(self, request: EmbedRequest) -> Embeddings:
        if self._built is None or self._progress.state != "ready":
            raise EngineDead(f"the engine takes no requests ({self._progress.stage})")
        if self._errored():
            raise self._dead()
        check_embed_request(request, self.info)
        room = self._built.shape.max_num_seqs + self._config.max_waiting
        if self._embedding >= room:
            raise EngineOverloaded(f"{self._embedding} requests are queued or running")
        self._embedding += 1
        try:
            return await self._vectors(self._built, request)
        finally:
            self._embedding -= 1

    async def _vectors(self, built: Built, request: EmbedRequest) -> Embeddings:
        """The vectors of all prompts; when one fails or is cancelled, all are aborted."""
        window = asyncio.Semaphore(_WINDOW * built.shape.max_num_seqs)
        began = time.perf_counter()
        first: float | None = None

        async def one(index: int, prompt: Sequence[int]) -> NDArray[np.float32]:
            nonlocal first
            async with window:
                first = first or time.perf_counter()
                return await self._vector(built, request, f"{request.request_id}-{index}", prompt)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(one(index, prompt))
                    for index, prompt in enumerate(request.prompts)
                ]
        except ExceptionGroup as failed:  # the first to fail has ended the others
            raise failed.exceptions[0] from None
        rows = np.stack([task.result() for task in tasks])
        return Embeddings(rows, (first or began) - began)

    async def _vector(
        self, built: Built, request: EmbedRequest, request_id: str, prompt: Sequence[int]
    ) -> NDArray[np.float32]:
        from vllm.inputs import tokens_input
        from vllm.pooling_params import PoolingParams

        space = self.info.embedding
        assert space is not None
        cut = request.dimensions if request.dimensions != space.dimension else None
        params = PoolingParams(task="embed", dimensions=cut, use_activation=request.normalize)
        self._live.add(request_id)
        try:
            source = built.llm.encode(
                tokens_input(list(prompt)), params, request_id, priority=request.priority
            )
            async with contextlib.aclosing(source) as outputs:
                async for output in outputs:
                    if output.finished:
                        return as_row(output)
        except EngineError:
            raise
        except Exception as error:
            if self._errored():
                raise self._dead() from error
            raise compat.translate(error) from error
        finally:
            self._live.discard(request_id)
        raise EngineDead("the engine was stopped while it worked on this request")


def as_row(output: Any) -> NDArray[np.float32]:
    """The vector in a PoolingRequestOutput; EngineDead when it was aborted without one."""
    data = getattr(output.outputs, "data", None)
    if data is None or data.numel() == 0:
        raise EngineDead("the engine was stopped while it worked on this request")
    row: NDArray[np.float32] = data.detach().float().cpu().numpy().reshape(-1)
    return row


def as_embedder(info: ModelInfo, model: Any) -> ModelInfo:
    """The description of a pooling model, from vLLM's ``ModelConfig``."""
    info.tokenizer.no_truncation()
    info.tokenizer.no_padding()
    pooler = model.pooler_config
    normalized = getattr(pooler, "use_activation", None)
    shortened: frozenset[int] | None = frozenset()
    if model.is_matryoshka:
        named = model.matryoshka_dimensions
        shortened = frozenset(named) if named else None
    return dataclasses.replace(
        info,
        capabilities=Capabilities(
            prompt_logprobs=False, embeddings=True, generation=False, max_logprobs=0
        ),
        embedding=EmbeddingSpace(int(model.embedding_size), normalized is not False, shortened),
    )
