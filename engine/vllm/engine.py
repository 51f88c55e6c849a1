"""vLLM's AsyncLLM as an engine of the seam."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import threading
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from engine.base import (
    Delta,
    EngineDead,
    EngineError,
    EngineOverloaded,
    EngineStartError,
    EngineState,
    GenerateRequest,
    Load,
    ModelInfo,
    Progress,
    RenderedImages,
    RequestRejected,
    SamplingParams,
)
from engine.checks import check_request
from engine.config import EngineConfig
from engine.detokenize import Detokenizer
from engine.structured import GrammarCompiler
from engine.vllm import compat, compat_outputs, convert, describe, metrics
from engine.vllm import images as vision
from engine.vllm.attempt import Runner
from engine.vllm.build import Built, build
from engine.vllm.hardware import Hardware, detect
from engine.vllm.process import CoreProcesses

log = logging.getLogger(__name__)

_POLL_S = 0.02
# How long consumers get to take the last delta of an aborted request.
_LAST_DELTA_S = 0.5


class VllmEngine:
    """One model on vLLM, in a process tree of its own below this one.

    Args:
        config: what to load.
        hardware: finds out what it will run on; asked once per start.
    """

    def __init__(self, config: EngineConfig, hardware: Callable[[], Hardware] = detect) -> None:
        self._config = config
        self._hardware = hardware
        self._progress = Progress("created", "not started")
        self._built: Built | None = None
        self._info: ModelInfo | None = None
        self._processes = CoreProcesses()
        self._cancelled = threading.Event()
        self._loading: asyncio.Future[Built] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._deadline = math.inf
        self._live: set[str] = set()
        self._grammars: GrammarCompiler | None = None

    @property
    def info(self) -> ModelInfo:
        if self._info is None:
            raise EngineError("the engine has not been loaded yet")
        return self._info

    @property
    def progress(self) -> Progress:
        if self._progress.state == "ready" and self._errored():
            return Progress("dead", "EngineCore is gone")
        return self._progress

    async def start(self) -> None:
        if self._progress.state != "created":
            raise EngineStartError("an engine starts once; make a new one")
        self._stage("checking the settings")
        self._loading = asyncio.ensure_future(asyncio.to_thread(self._load))
        try:
            self._built = await asyncio.shield(self._loading)
            await self._finish_start(self._built)
        except asyncio.CancelledError:
            await self._give_up()
            raise
        except Exception as error:
            reason = self._processes.reason() or str(error) or type(error).__name__
            explain = self._built.explain if self._built is not None else str
            await self._give_up()
            if isinstance(error, EngineStartError):
                raise
            raise EngineStartError(explain(reason)) from error
        self._set("ready", "ready", 1.0)

    def _load(self) -> Built:
        """Runs in a thread."""
        return build(self._config, self._hardware, self._processes, self._stage, self._cancelled)

    async def _unload(self, built: Built) -> None:
        await built.unload(self._processes)

    async def _finish_start(self, built: Built) -> None:
        """What needs the event loop: adapters, and one token as a proof of life."""
        llm = built.llm
        compat_outputs.listen(llm)
        if "generate" not in await llm.get_supported_tasks():
            raise EngineStartError(
                f"{self._config.model} does not generate text (vLLM offers: "
                f"{', '.join(await llm.get_supported_tasks())})"
            )
        for name, adapter in built.adapters.items():
            self._stage(f"loading the adapter {name}")
            await llm.add_lora(adapter)
        self._info = describe.model_info(
            self._config, llm, built.label, built.device, built.adapters
        )
        self._grammars = await asyncio.to_thread(_grammars, self._info)
        self._stage("generating a first token")
        first = GenerateRequest("first-token", [0], SamplingParams(max_tokens=1))
        async with contextlib.aclosing(self._runner(built).long_way(first)) as stream:
            async for _ in stream:
                pass

    async def _give_up(self) -> None:
        """Leave no process behind, whatever state the start is in."""
        self._cancelled.set()
        if self._stopping is None:
            self._set("dead", "could not start")
        loading, self._loading = self._loading, None
        if loading is None:  # a stop has come first and does the same
            return
        while not loading.done():
            # Children that are gone make vLLM's constructor fail, which ends the thread.
            await asyncio.to_thread(self._processes.kill)
            await asyncio.wait([loading], timeout=_POLL_S)
        if loading.exception() is None:
            self._built = None
            await self._unload(loading.result())
        await asyncio.to_thread(self._processes.close)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        runner = self._admit(request)
        structured = request.sampling.structured
        if structured is not None and self._grammars is not None:
            # vLLM would check it on the event loop, without bounds on the work.
            await self._grammars.prepare(structured)
            runner = self._admit(request)
        self._live.add(request.request_id)
        try:
            if not runner.takes_short_way(request):
                async with contextlib.aclosing(runner.long_way(request)) as stream:
                    async for delta in stream:
                        yield delta
                return
            # Without further layers: this runs for every token.
            async with runner.submitted(request) as (inbox, outputs):
                finished = False
                while not finished:
                    for item in await inbox.take():
                        if type(item) is list:
                            yield outputs.plain(item)
                        else:
                            for delta in outputs.deltas(item):
                                yield delta
                        finished = outputs.finished
                        if finished:
                            break
        finally:
            self._live.discard(request.request_id)

    def _admit(self, request: GenerateRequest) -> Runner:
        if self._built is None or self._progress.state != "ready":
            raise EngineDead(f"the engine takes no requests ({self._progress.stage})")
        if self._errored():
            raise self._dead()
        check_request(request, self.info)
        if request.lora is not None and request.lora not in self._built.adapters:
            raise RequestRejected(
                f"no adapter {request.lora!r} is loaded", param="model", code="model_not_found"
            )
        self._check_queue(self._built, request)
        return self._runner(self._built)

    def _check_queue(self, built: Built, request: GenerateRequest) -> None:
        """vLLM's last report says who waits for KV memory; it is a step old, so the number
        of requests that surely cannot run all at once is the bound between two steps."""
        most = self._config.max_waiting
        unfinished = self._unfinished(built)
        reported = min(built.counters.total("waiting"), unfinished)
        room = built.shape.max_num_seqs * len(built.counters.ranks) + most
        if unfinished + request.sampling.n > room or reported >= max(1, most):
            raise EngineOverloaded(f"{max(reported, unfinished)} requests are queued or running")

    async def render_images(
        self, prompt_ids: Sequence[int], images: Sequence[Any]
    ) -> RenderedImages:
        if self._built is None or self._progress.state != "ready" or self._errored():
            raise self._dead()
        return await vision.render(self._built.llm, prompt_ids, images)

    def can_carry_on(self, request: GenerateRequest) -> bool:
        return convert.can_be_carried_on(request)

    def load(self) -> Load:
        built = self._built
        if built is None:
            return Load(0, 0, 0, 0, self._config.max_num_seqs)
        return metrics.load(built.counters, built.shape, self._unfinished(built))

    async def check_health(self) -> None:
        if self._progress.state != "ready" or self._errored():
            raise self._dead()

    async def stop(self, drain_s: float) -> None:
        now = asyncio.get_running_loop().time()
        self._deadline = min(self._deadline, now + drain_s)
        if self._stopping is None:
            if self._progress.state == "ready":
                self._set("draining", "letting requests finish")
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        if self._loading is not None and self._built is None:
            await self._give_up()
        if (built := self._built) is not None:
            llm = built.llm
            if not self._errored():
                await self._until(lambda: self._unfinished(built) == 0, math.inf)
                await llm.abort(list(self._live))
                await self._until(lambda: not self._live, _LAST_DELTA_S)
            self._set("stopped", "stopped")
            self._built = self._loading = None
            await self._unload(built)
        await asyncio.to_thread(self._processes.close)
        self._set("stopped", "stopped")

    async def _until(self, true: Callable[[], bool], seconds: float) -> None:
        """Wait for ``true()``, for ``seconds`` or, when those are infinite, the deadline."""
        now = asyncio.get_running_loop().time
        until = now() + seconds
        while not true() and now() < (self._deadline if math.isinf(until) else until):
            if self._errored():
                return
            await asyncio.sleep(_POLL_S)

    def _unfinished(self, built: Built) -> int:
        """Sequences that vLLM has not finished; none once it is dead."""
        if self._errored():
            return 0
        return int(built.llm.output_processor.get_num_unfinished_requests())

    def _runner(self, built: Built) -> Runner:
        return Runner(built, self.info.eos_token_ids, self._detokenizer, self._failure)

    @functools.cached_property
    def _detokenizer(self) -> Detokenizer:
        return Detokenizer(self.info.tokenizer)

    def _failure(self, error: Exception) -> EngineError:
        return self._dead() if self._errored() else compat.translate(error)

    def _errored(self) -> bool:
        return self._built is not None and bool(self._built.llm.errored)

    def _dead(self) -> EngineDead:
        reason = self._processes.reason()
        why = f": {reason.splitlines()[0]}" if reason else ""
        if self._progress.state != "ready":
            return EngineDead(f"the engine is not running ({self._progress.stage})")
        return EngineDead(f"vLLM's engine process is gone{why}")

    def _stage(self, stage: str) -> None:
        log.info("vllm: %s", stage)
        self._set("loading", stage)

    def _set(self, state: EngineState, stage: str, fraction: float | None = None) -> None:
        self._progress = Progress(state, stage, fraction)


def _grammars(info: ModelInfo) -> GrammarCompiler | None:
    """What checks constraints before vLLM sees them; None for a tokenizer it cannot read."""
    try:
        return GrammarCompiler(info.tokenizer, info.vocab_size, info.eos_token_ids)
    except ValueError:
        return None
