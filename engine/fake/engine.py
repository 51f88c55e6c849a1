"""The Engine protocol without a model. All streams are stepped in one callback of the event
loop, so that a front end can be driven much faster than a model would."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import itertools
import math
import random
import time
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field

from engine.base import (
    Delta,
    EngineDead,
    EngineError,
    EngineOverloaded,
    EngineStartError,
    EngineState,
    FinishReason,
    GenerateRequest,
    Load,
    ModelInfo,
    Progress,
    TokenLogprob,
)
from engine.checks import check_request
from engine.config import EngineConfig
from engine.detokenize import Detokenizer
from engine.fake.prefixes import Prefixes
from engine.fake.script import FakeScript, logprob, tokens
from engine.fake.tokenizer import CHAT_TEMPLATE, EOS_ID, EOS_TOKEN, VOCAB_SIZE, byte_tokenizer
from engine.mailbox import Mailbox
from engine.options import read_options
from engine.output import OutputTracker

DEFAULT_MAX_MODEL_LEN = 8192
_START_STEPS = 20


@dataclass(slots=True, eq=False)
class _Choice:
    """One choice on its way; something happens to it at loop time ``due``."""

    job: _Job
    index: int
    source: Iterator[int]
    output: OutputTracker
    due: float
    length: int = 0
    unsent_text: str = ""


@dataclass(slots=True, eq=False)
class _Job:
    """A request and its unfinished choices."""

    request: GenerateRequest
    order: tuple[int, int]
    submitted_at: float
    mailbox: Mailbox = field(default_factory=Mailbox)
    choices: list[_Choice] = field(default_factory=list)
    queue_s: float | None = None
    cached_tokens: int = 0


class FakeEngine:
    """Does what a FakeScript says, which is what ``config.options`` holds.

    Of the sampling options, penalties, bias and bad words change nothing here.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._script = FakeScript()
        self._progress = Progress("created", "not started")
        self._info: ModelInfo | None = None
        self._detokenizer = Detokenizer(byte_tokenizer())
        self._random = random.Random()  # noqa: S311 - delays, not secrets
        self._arrivals = itertools.count()
        self._waiting: list[_Choice] = []
        self._running: list[_Choice] = []
        self._prefixes = Prefixes(config.prefix_cache_tokens)
        self._timer: asyncio.Handle | None = None
        self._tokens_made = 0
        self._idle = asyncio.Event()
        self._stop_asked = asyncio.Event()

    @property
    def info(self) -> ModelInfo:
        if self._info is None:
            raise EngineError("the engine has not started")
        return self._info

    @property
    def progress(self) -> Progress:
        return self._progress

    async def start(self) -> None:
        if not self._is("created"):
            raise EngineStartError("an engine starts once: build a new one")
        try:
            await self._pretend_to_load()
        except BaseException:
            self._report("stopped", "the start failed")
            raise
        self._info = _model_info(self._config)
        self._report("ready", "ready", 1.0)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Delta, None]:
        self._check_can_take(request)
        job = self._submit(request)
        unfinished = len(job.choices)
        try:
            while unfinished:
                for delta in await job.mailbox.take():
                    unfinished -= delta.finish_reason is not None
                    yield delta
        finally:
            for choice in job.choices.copy():
                self._retire(choice)

    def load(self) -> Load:
        config = self._config
        return Load(
            waiting=len(self._waiting),
            running=len(self._running),
            kv_used=sum(len(c.job.request.prompt_ids) + c.length for c in self._running),
            kv_total=config.kv_cache_tokens or config.max_num_seqs * _max_model_len(config),
            max_running=config.max_num_seqs,
            prefix_queries=self._prefixes.queries,
            prefix_hits=self._prefixes.hits,
        )

    async def check_health(self) -> None:
        if self._is("dead") or self._is("stopped"):
            raise EngineDead(f"the engine is {self._progress.state}")

    async def stop(self, drain_s: float) -> None:
        self._stop_asked.set()
        if self._is("ready"):
            self._report("draining", "letting running requests finish")
            if self._running or self._waiting:
                self._idle.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._idle.wait(), drain_s)
        for choice in [*self._running, *self._waiting]:
            self._put(choice, [], choice.output.flush(), "abort")
            self._retire(choice)
        if not self._is("dead"):
            self._report("stopped", "stopped")

    def die(self) -> None:
        """Die now, as a crashed engine does."""
        self._report("dead", "the engine died")
        for choice in [*self._running, *self._waiting]:
            choice.job.mailbox.put(EngineDead("the engine died"))
            self._retire(choice)

    async def _pretend_to_load(self) -> None:
        self._script = script = read_options(FakeScript, self._config.options)
        self._random.seed(script.seed)
        pause = None if script.hang == "start" else script.start_s / _START_STEPS
        for step in range(_START_STEPS):
            self._report("loading", "pretending to load", step / _START_STEPS)
            if pause == 0:
                await asyncio.sleep(0)
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop_asked.wait(), pause)
                raise EngineStartError("the engine was stopped while it loaded")
        if script.start_error is not None:
            raise EngineStartError(script.start_error)

    def _check_can_take(self, request: GenerateRequest) -> None:
        if self._is("dead"):
            raise EngineDead("the engine died")
        info = self.info
        if not self._is("ready"):
            raise EngineDead("the engine is stopping and takes no new requests")
        check_request(request, info)
        free_seats = self._config.max_num_seqs - len(self._running)
        if self._script.overloaded or len(self._waiting) >= self._config.max_waiting + free_seats:
            raise EngineOverloaded(f"{len(self._waiting)} requests are waiting already")

    def _submit(self, request: GenerateRequest) -> _Job:
        now = _now()
        job = _Job(request, (request.priority, next(self._arrivals)), now)
        resume, sampling = request.resume, request.sampling
        due = math.inf if self._script.hang == "queue" else now + self._vary(self._script.queue_s)
        for index in range(sampling.n) if resume is None else [resume.index]:
            output = OutputTracker(sampling, self._detokenizer, self.info.eos_token_ids)
            source = tokens(self._script, request, index, output.stop_ids)
            choice = _Choice(job, index, source, output, due)
            job.choices.append(choice)
            bisect.insort(self._waiting, choice, key=lambda waiting: waiting.job.order)
        if resume is not None:
            _replay(job.choices[0], resume.token_ids, resume.text_sent)
        self._schedule()
        return job

    def _schedule(self) -> None:
        """Make the appointment for the next thing that is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = min((choice.due for choice in self._running), default=math.inf)
        if len(self._running) < self._config.max_num_seqs:
            due = min([due, *(choice.due for choice in self._waiting)])
        loop = asyncio.get_running_loop()
        if due <= loop.time():
            self._timer = loop.call_soon(self._step)
        elif due < math.inf:
            self._timer = loop.call_at(due, self._step)

    def _step(self) -> None:
        """Do for all streams what is due now."""
        now = _now()
        for choice in self._waiting.copy():
            if len(self._running) == self._config.max_num_seqs:
                break
            if choice.due <= now:
                self._seat(choice, now)
        for choice in self._running.copy():
            if choice.due <= now:
                self._make_token(choice, now)
                if self._is("dead"):
                    return
        self._schedule()

    def _seat(self, choice: _Choice, now: float) -> None:
        self._waiting.remove(choice)
        self._running.append(choice)
        job = choice.job
        if job.queue_s is None:
            job.queue_s = now - job.submitted_at
            if job.request.sampling.prompt_logprobs is None:
                prompt, salt = job.request.prompt_ids, job.request.cache_salt
                job.cached_tokens = self._prefixes.look_up_and_keep(prompt, salt)
        hangs = self._script.hang == "prefill"
        choice.due = math.inf if hangs else now + self._vary(self._script.ttft_s)

    def _make_token(self, choice: _Choice, now: float) -> None:
        sampling = choice.job.request.sampling
        if choice.length >= sampling.max_tokens:
            self._put(choice, [], "", "length")
            self._retire(choice)
            return
        token = next(choice.source)
        choice.length += 1
        step = choice.output.take(token, choice.length)
        self._put(choice, [token], step.text, step.finish, step.stop_reason)
        if step.finish is not None:
            self._retire(choice)
        hangs = self._script.hang == "decode"
        choice.due = math.inf if hangs else now + self._vary(self._script.itl_s)
        self._tokens_made += 1
        if self._tokens_made == self._script.die_after_tokens:
            self.die()

    def _put(
        self,
        choice: _Choice,
        token_ids: list[int],
        text: str,
        finish: FinishReason | None,
        stop_reason: int | str | None = None,
    ) -> None:
        job = choice.job
        sampling = job.request.sampling
        if choice.unsent_text:
            text, choice.unsent_text = choice.unsent_text + text, ""
        logprobs = prompt_logprobs = None
        if sampling.logprobs is not None:
            logprobs = [logprob(token, sampling.logprobs) for token in token_ids]
        if sampling.prompt_logprobs is not None and choice.index == 0 and choice.length <= 1:
            prompt_logprobs = _prompt_logprobs(job.request, sampling.prompt_logprobs)
        job.mailbox.put(
            Delta(
                choice.index,
                token_ids,
                text,
                logprobs,
                finish,
                stop_reason,
                prompt_logprobs,
                job.cached_tokens,
                job.queue_s or 0.0,
            )
        )

    def _retire(self, choice: _Choice) -> None:
        choice.job.choices.remove(choice)
        (self._running if choice in self._running else self._waiting).remove(choice)
        if not self._running and not self._waiting:
            self._idle.set()

    def _vary(self, seconds: float) -> float:
        if seconds == 0 or self._script.jitter == 0:
            return seconds
        return seconds * (1 + self._script.jitter * self._random.uniform(-1, 1))

    def _is(self, state: EngineState) -> bool:
        return self._progress.state == state

    def _report(self, state: EngineState, stage: str, fraction: float | None = None) -> None:
        self._progress = Progress(state, stage, fraction)


def _replay(choice: _Choice, token_ids: tuple[int, ...], text_sent: int) -> None:
    text = ""
    for token in token_ids:
        next(choice.source)
        choice.length += 1
        text += choice.output.take(token, choice.length).text
    choice.unsent_text = text[text_sent:]


def _prompt_logprobs(request: GenerateRequest, alternatives: int) -> list[TokenLogprob | None]:
    return [None, *(logprob(token, alternatives) for token in request.prompt_ids[1:])]


def _max_model_len(config: EngineConfig) -> int:
    return config.max_model_len or DEFAULT_MAX_MODEL_LEN


def _now() -> float:
    return asyncio.get_running_loop().time()


def _model_info(config: EngineConfig) -> ModelInfo:
    names = config.names
    return ModelInfo(
        id=names[0],
        aliases=tuple(names[1:]),
        source=config.model,
        max_model_len=_max_model_len(config),
        vocab_size=VOCAB_SIZE,
        tokenizer=byte_tokenizer(),
        chat_template=CHAT_TEMPLATE,
        template_globals={"eos_token": EOS_TOKEN},
        eos_token_ids=frozenset([EOS_ID]),
        created=int(time.time()),
        engine="fake",
        quantization="none",
        device="none",
        dtype="none",
    )
