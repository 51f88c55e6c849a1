"""Model steps: one decode step of everyone, then prefill chunks of whoever is next."""

from __future__ import annotations

import time

import numpy as np

from engine.base import Delta, EngineError, FinishReason, Load, TokenLogprob
from engine.mailbox import Mailbox
from engine.onnx.chunks import chunk_length
from engine.onnx.logprobs import Logits, token_logprobs
from engine.onnx.mask_ahead import MaskAhead
from engine.onnx.pacing import Pacer
from engine.onnx.prefix_cache import BLOCK, PrefixCache, extend_keys
from engine.onnx.sampler import NOT_FINITE, Choices, Sampler
from engine.onnx.scheduler import Scheduler
from engine.onnx.sequence import Job, Sequence
from engine.onnx.session import ModelSession
from engine.output import Advance

Output = tuple[Mailbox, Delta | EngineError]

# Floats of logits that one chunk may produce when every prompt token is reported on.
_PROMPT_LOGITS = 4_000_000


class Stepper:
    """Jobs in, outputs out, one model run at a time; used on the engine's thread only.

    Args:
        kv_tokens: tokens that running sequences may hold together.
    """

    def __init__(
        self,
        session: ModelSession,
        *,
        max_running: int,
        kv_tokens: int,
        prefix_cache_tokens: int,
        itl_ratio: float,
    ) -> None:
        self._session = session
        self._cache = PrefixCache(session.kv, prefix_cache_tokens)
        self._scheduler = Scheduler(
            session.kv,
            max_running=max_running,
            kv_tokens=kv_tokens,
            before_leaving=self._publish,
        )
        self._pacer = Pacer(itl_ratio, session.max_chunk)
        self._max_running = max_running
        self._kv_tokens = kv_tokens
        self._sampler = Sampler([])
        self._sampler_version = self._scheduler.batch_version
        self._masks = MaskAhead()
        self._outputs: list[Output] = []
        self.jobs: dict[int, Job] = {}
        """Unfinished jobs by arrival."""

    def add(self, job: Job) -> None:
        """Queue every choice of a job."""
        self.jobs[job.arrival] = job
        for sequence in job.sequences:
            self._scheduler.add(sequence)

    def drop(self, job: Job) -> None:
        """Forget what is left of a job, in whatever phase it is; harmless when it is over."""
        for sequence in job.sequences:
            self._scheduler.remove(sequence)
        job.sequences.clear()
        self.jobs.pop(job.arrival, None)

    def abort_all(self) -> None:
        """End every job with ``abort``, giving out the text that was held back."""
        for job in list(self.jobs.values()):
            for sequence in job.sequences:
                self._put(sequence, text=sequence.output.flush(), finish="abort")
            self.drop(job)

    def close(self) -> None:
        """End what runs beside the model."""
        self._masks.close()

    def take_outputs(self) -> list[Output]:
        """Outputs since the last call."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def load(self) -> Load:
        """What is held now."""
        scheduler = self._scheduler
        return Load(
            waiting=scheduler.waiting_count,
            running=scheduler.running_count,
            kv_used=scheduler.used_tokens,
            kv_total=self._kv_tokens,
            max_running=self._max_running,
            preemptions=scheduler.preemptions,
            prefix_queries=self._cache.queries,
            prefix_hits=self._cache.hits,
        )

    def decode(self) -> None:
        """Add one token to every decoding sequence, if there is one; prefill may follow."""
        scheduler = self._scheduler
        scheduler.make_room_to_decode()
        batch = list(scheduler.decoding)
        if batch:
            self._decode(batch)
        self._pacer.open_gap()

    def _decode(self, batch: list[Sequence]) -> None:
        scheduler = self._scheduler
        started = time.perf_counter()
        with self._masks.computed_beside(batch):
            logits = self._session.decode(
                [sequence.tokens[sequence.kv_len] for sequence in batch],
                [sequence.kv_len for sequence in batch],
            )
        for sequence in batch:
            sequence.kv_len += 1
        if self._sampler_version != scheduler.batch_version:
            self._sampler = Sampler(batch)
            self._sampler_version = scheduler.batch_version
        self._take_choices(batch, self._sampler.choose(logits))
        self._pacer.decoded(len(batch), time.perf_counter() - started)

    def prefill(self) -> bool:
        """Run one prefill chunk; False when a decode step is due or nothing waits."""
        room = self._pacer.room(len(self._scheduler.decoding))
        sequence = self._scheduler.next_to_prefill() if room else None
        if sequence is None:
            return False
        if sequence.kv_len == 0:
            self._begin_prefill(sequence)
        start, end = sequence.kv_len, sequence.prompt_len
        if start >= end:
            self._scheduler.start_decoding(sequence)
            return True
        most = min(room, self._session.max_chunk)
        if sequence.wants_prompt_logprobs:
            most = min(most, _PROMPT_LOGITS // self._session.vocab_size)
        count = chunk_length(end - start, most, self._session.attention_rows)
        wanted = count if sequence.wants_prompt_logprobs else 1
        started = time.perf_counter()
        chunk = sequence.tokens[start : start + count]
        logits = self._session.prefill(sequence.slot, start, chunk, wanted)
        sequence.kv_len += count
        self._publish(sequence)  # chunk by chunk, since a long prompt's KV at once is a stall
        self._pacer.prefilled(count, time.perf_counter() - started)
        if sequence.wants_prompt_logprobs:
            self._report_prompt(sequence, start, logits)
        if sequence.kv_len == end:
            self._end_prefill(sequence, logits[-1:])
        return True

    def _begin_prefill(self, sequence: Sequence) -> None:
        job = sequence.job
        is_first = job.queue_s is None
        if is_first:
            job.queue_s = time.monotonic() - job.submitted_at
        if sequence.wants_prompt_logprobs:
            job.prompt_logprobs = [None]
        elif self._cache.enabled:
            # At least one token has to be computed, for its logits.
            blocks = (len(sequence.tokens) - 1) // BLOCK
            keys = sequence.block_keys
            extend_keys(keys, job.request.cache_salt, sequence.tokens, blocks)
            found = self._cache.load(keys[:blocks], sequence.slot)
            is_one_short = found == sequence.prompt_len - 1 > 0
            sequence.kv_len = found - BLOCK if is_one_short else found  # see chunk_length
        if is_first:
            job.cached_tokens = min(sequence.kv_len, sequence.prompt_len)

    def _report_prompt(self, sequence: Sequence, start: int, logits: Logits) -> None:
        """Add log-probabilities of the prompt tokens that ``logits`` predict."""
        job, alternatives = sequence.job, sequence.sampling.prompt_logprobs
        assert alternatives is not None
        chosen = sequence.tokens[start + 1 : start + 1 + len(logits)]
        rows = logits[: len(chosen)]
        if not np.isfinite(rows.max(axis=1)).all():
            self._fail(job, EngineError(NOT_FINITE))
            return
        job.prompt_logprobs += token_logprobs(rows, chosen, [alternatives] * len(chosen))

    def _end_prefill(self, sequence: Sequence, logits: Logits) -> None:
        self._scheduler.start_decoding(sequence)
        if sequence.is_catching_up:
            return
        family = [sequence]
        if sequence.output_len == 0:
            siblings = [s for s in sequence.job.sequences if s.slot < 0 and s.output_len == 0]
            family += [s for s in siblings if self._scheduler.fork(sequence, s)]
        if sequence.output_len >= sequence.sampling.max_tokens:
            for member in family:
                self._put(member, text=member.output.flush(), finish="length")
                self._retire(member)
            return
        rows = np.repeat(logits, len(family), axis=0)
        self._take_choices(family, Sampler(family).choose(rows))

    def _take_choices(self, batch: list[Sequence], choices: Choices) -> None:
        """Append the chosen tokens, put out their deltas and retire who has finished."""
        for row, fault in choices.faults.items():
            self._fail(batch[row].job, fault)
        finished = []
        for sequence, token, logprob in zip(batch, choices.tokens, choices.logprobs, strict=True):
            has_failed = sequence.slot < 0  # perhaps through a sibling
            if has_failed or sequence.is_catching_up:
                continue
            sequence.append(token)
            step = sequence.output.take(token, sequence.output_len)
            constraint = sequence.constraint
            if constraint is not None and constraint.ended and step.finish in (None, "length"):
                # Nothing could follow but the end.
                step = Advance(step.text + sequence.output.flush(), "stop")
            self._put(sequence, token, step.text, logprob, step.finish, step.stop_reason)
            if step.finish is not None:
                finished.append(sequence)
        for sequence in finished:
            self._retire(sequence)

    def _put(
        self,
        sequence: Sequence,
        token: int | None = None,
        text: str = "",
        logprob: TokenLogprob | None = None,
        finish: FinishReason | None = None,
        stop_reason: int | str | None = None,
    ) -> None:
        job = sequence.job
        is_first = sequence.index == 0 and sequence.output_len <= 1
        if sequence.unsent_text:
            text, sequence.unsent_text = sequence.unsent_text + text, ""
        delta = Delta(
            index=sequence.index,
            token_ids=[] if token is None else [token],
            text=text,
            logprobs=None if logprob is None else [logprob],
            finish_reason=finish,
            stop_reason=stop_reason,
            prompt_logprobs=job.prompt_logprobs or None if is_first else None,
            cached_tokens=job.cached_tokens,
            queue_s=job.queue_s or 0.0,
        )
        self._outputs.append((job.mailbox, delta))

    def _retire(self, sequence: Sequence) -> None:
        job = sequence.job
        job.sequences.remove(sequence)
        self._scheduler.remove(sequence)
        if not job.sequences:
            del self.jobs[job.arrival]

    def _fail(self, job: Job, error: EngineError) -> None:
        if job.sequences:
            self._outputs.append((job.mailbox, error))
            self.drop(job)

    def _publish(self, sequence: Sequence) -> None:
        if self._cache.enabled:
            blocks = sequence.kv_len // BLOCK
            keys = sequence.block_keys
            extend_keys(keys, sequence.job.request.cache_salt, sequence.tokens, blocks)
            self._cache.publish(keys[:blocks], sequence.slot)
