"""The Engine protocol over a prepared model; everything heavy is on other threads."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from engine.base import (
    Capabilities,
    Delta,
    EngineOverloaded,
    EngineStartError,
    GenerateRequest,
    Load,
    ModelInfo,
    RequestRejected,
)
from engine.checks import check_request
from engine.config import EngineConfig
from engine.detokenize import Detokenizer
from engine.life import ThreadedEngine
from engine.mailbox import Mailbox
from engine.onnx.hardware import physical_cores
from engine.onnx.kv_budget import kv_tokens
from engine.onnx.loop import EngineLoop
from engine.onnx.prefix_cache import BLOCK
from engine.onnx.prepared import PreparedModel
from engine.onnx.scheduler import blocks_for
from engine.onnx.sequence import Job, make_sequences
from engine.onnx.session import ModelSession
from engine.onnx.stepper import Output, Stepper
from engine.options import read_options
from engine.structured import GrammarCompiler

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OnnxOptions:
    """What ``EngineConfig.options`` may hold for this engine.

    Attributes:
        max_prefill_chunk: most prompt tokens of one model run.
        spin_us: microseconds that model threads stay awake between operators. Sleeping at
            once costs a quarter of the speed of one stream; staying awake for long takes
            the CPU from the event loop and halves the speed on a busy machine.
    """

    max_prefill_chunk: int = 512
    spin_us: int = 20

    def __post_init__(self) -> None:
        if not BLOCK <= self.max_prefill_chunk <= 65_536:
            raise ValueError(f"max_prefill_chunk must be in [{BLOCK}, 65536]")
        if not 0 <= self.spin_us <= 1_000_000:
            raise ValueError("spin_us must be in [0, 1000000]")


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What loading leaves, less the stepper: that belongs to the engine's thread."""

    info: ModelInfo
    detokenizer: Detokenizer
    grammars: GrammarCompiler | None


class OnnxEngine(ThreadedEngine[_Loaded, EngineLoop]):
    """Serves one model on CPU with continuous batching.

    Args:
        config: what to serve; ``options`` is read as OnnxOptions.
        folder: a prepared-model folder to take instead of finding, fetching and converting
            ``config.model``.
    """

    def __init__(self, config: EngineConfig, folder: Path | None = None) -> None:
        super().__init__()
        self._config = config
        self._folder = folder
        self._submitted = 0
        self._arrivals = itertools.count()

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        loaded, loop = self._admit(request)
        grammar = None
        structured = request.sampling.structured
        if structured is not None and loaded.grammars is not None:
            grammar = await loaded.grammars.prepare(structured)
            loaded, loop = self._admit(request)  # much may have changed meanwhile
        mailbox = Mailbox()
        job = Job(request, mailbox, arrival=next(self._arrivals))
        eos_token_ids = loaded.info.eos_token_ids
        job.sequences = make_sequences(job, loaded.detokenizer, eos_token_ids, grammar)
        unfinished = request.sampling.n
        self._submitted += 1
        loop.submit(job)
        self._raise_if_dead()  # a thread that died before this has not seen the job
        try:
            while unfinished:
                for delta in await mailbox.take():
                    if delta.finish_reason is not None:
                        unfinished -= 1
                    yield delta
        finally:
            if unfinished:
                loop.abort(job)

    def load(self) -> Load:
        if self._worker is None or self._is("dead"):
            return Load(0, 0, 0, 0, self._config.max_num_seqs)
        snapshot = self._worker.snapshot
        on_the_way = self._submitted - snapshot.submitted
        if not on_the_way:
            return snapshot.load
        return replace(snapshot.load, waiting=snapshot.load.waiting + on_the_way)

    def _admit(self, request: GenerateRequest) -> tuple[_Loaded, EngineLoop]:
        """Refuse what cannot or must not be taken on."""
        loaded, loop = self._running()
        check_request(request, loaded.info)
        load = self.load()
        needed = blocks_for(len(request.prompt_ids) + max(0, request.sampling.max_tokens - 1))
        if needed * BLOCK > load.kv_total:
            raise RequestRejected(
                f"the request needs room for {needed * BLOCK} tokens and the server has KV "
                f"memory for {load.kv_total}",
                code="context_length_exceeded",
            )
        free_seats = max(0, load.max_running - load.running)
        if load.waiting >= self._config.max_waiting + free_seats:
            raise EngineOverloaded(f"{load.waiting} requests are waiting already")
        return loaded, loop

    def _deliver(self, outputs: list[Output]) -> None:
        assert self._event_loop is not None
        try:
            self._event_loop.call_soon_threadsafe(_put_all, outputs)
        except RuntimeError:  # the event loop is closed: nobody is left to serve
            if self._worker is not None:
                self._worker.end()

    def _prepare(self) -> Path:
        from engine.models.convert import prepare

        return prepare(self._config.model, self._config.precision, self._config, self._tell)

    def _load(self) -> tuple[_Loaded, Callable[[], EngineLoop]]:
        config = self._config
        options = read_options(OnnxOptions, config.options)
        if config.itl_ratio <= 1:
            raise EngineStartError("itl_ratio must be above 1")
        if config.max_num_seqs < 1:
            raise EngineStartError("max_num_seqs must be at least 1")
        model = PreparedModel.read(self._folder or self._prepare())
        self._tell("loading the weights", 0.2)
        try:
            loaded, stepper = self._build(model, options)
        except (MemoryError, OSError) as error:
            raise EngineStartError(
                f"there is not enough memory for {model.folder} ({error}): lower MAX_MODEL_LEN, "
                "MAX_NUM_SEQS or ONNX_PREFIX_CACHE_TOKENS"
            ) from error
        return loaded, lambda: EngineLoop(stepper, deliver=self._deliver, on_death=self._die)

    def _build(self, model: PreparedModel, options: OnnxOptions) -> tuple[_Loaded, Stepper]:
        config = self._config
        longest = model.manifest.max_model_len
        max_len = min(longest, config.max_model_len or longest)
        budget = kv_tokens(config, model, max_len)
        session = ModelSession(
            model,
            slots=config.max_num_seqs,
            max_len=min(max_len, budget),
            resident_tokens=budget,
            max_chunk=min(options.max_prefill_chunk, max_len),
            threads=config.threads or physical_cores(),
            spin_us=options.spin_us,
        )
        stepper = Stepper(
            session,
            max_running=config.max_num_seqs,
            kv_tokens=budget,
            prefix_cache_tokens=config.prefix_cache_tokens,
            itl_ratio=config.itl_ratio,
        )
        self._tell("warming up", 0.9)
        session.warm_up()
        grammars = _grammars(model)
        info = _model_info(model, config, max_len, structured_output=grammars is not None)
        return _Loaded(info, Detokenizer(model.tokenizer), grammars), stepper


def _grammars(model: PreparedModel) -> GrammarCompiler | None:
    """What constrains outputs; None for a tokenizer that it cannot be done with."""
    manifest = model.manifest
    try:
        return GrammarCompiler(model.tokenizer, manifest.vocab_size, manifest.eos_token_ids)
    except ValueError as error:
        log.warning("%s cannot give structured output: %s", model.folder, error)
        return None


def _put_all(outputs: list[Output]) -> None:
    for mailbox, item in outputs:
        mailbox.put(item)


def _model_info(
    model: PreparedModel, config: EngineConfig, max_len: int, *, structured_output: bool
) -> ModelInfo:
    manifest = model.manifest
    names = config.names
    return ModelInfo(
        id=names[0],
        aliases=tuple(names[1:]),
        source=config.model,
        max_model_len=max_len,
        vocab_size=manifest.vocab_size,
        tokenizer=model.tokenizer,
        chat_template=model.chat_template,
        template_globals=model.template_globals,
        eos_token_ids=frozenset(manifest.eos_token_ids),
        created=int(time.time()),
        engine="onnx",
        quantization="none" if manifest.precision == "fp32" else manifest.precision,
        device="cpu",
        dtype="float32",
        capabilities=Capabilities(structured_output=structured_output),
        default_sampling=model.default_sampling,
    )
