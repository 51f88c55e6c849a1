"""One choice of one request on its way through the engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.base import (
    GenerateRequest,
    RequestRejected,
    Resume,
    SamplingParams,
    TokenLogprob,
)
from engine.detokenize import Detokenizer
from engine.mailbox import Mailbox
from engine.onnx.draws import Draws
from engine.onnx.token_counts import TokenCounts, counts_for
from engine.output import OutputTracker
from engine.structured import Grammar


class TokenConstraint(Protocol):
    """Restricts what a sequence may emit next, such as a grammar.

    Attributes:
        fault: why it cannot go on, or None.
    """

    fault: str | None

    @property
    def ended(self) -> bool:
        """Whether it is complete, so that nothing but end-of-sequence may follow."""

    def allowed_mask(self) -> npt.NDArray[np.int32]:
        """Bit ``i % 32`` of word ``i // 32`` is set when token ``i`` is allowed next.

        Words beyond the end count as zero. The result is kept until ``accept``, so that it
        can be computed ahead.
        """

    def accept(self, token_id: int) -> None:
        """Advance by a token that was chosen under the last mask."""


@dataclass(slots=True, eq=False)
class Job:
    """A request inside the engine: what its choices share.

    Attributes:
        arrival: orders requests of equal priority.
        prompt_logprobs: filled chunk by chunk, one entry per prompt token, when asked for.
        sequences: choices that have not finished.
    """

    request: GenerateRequest
    mailbox: Mailbox
    arrival: int
    submitted_at: float = field(default_factory=time.monotonic)
    queue_s: float | None = None
    cached_tokens: int = 0
    prompt_logprobs: list[TokenLogprob | None] = field(default_factory=list)
    sequences: list[Sequence] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens of one choice and where its KV is.

    Attributes:
        tokens: prompt and output; the last one has no KV yet while decoding.
        prompt_len: leading tokens that are computed in chunks. Output is computed token by
            token, also when that has to be done again: attention over one new token rounds
            otherwise than over several, so anything else would make an output depend on
            whether it was preempted or taken over from another engine.
        kv_len: leading tokens whose KV is in ``slot``.
        slot: row of the KV buffers, or -1 while waiting.
        blocks: KV blocks reserved for it.
        block_keys: prefix-cache keys of its leading full blocks, as far as computed.
        unsent_text: text of a resumed output that nobody has yielded yet.
        counts: what the penalties need, or None without penalties.
        constraint: None for free text.
    """

    job: Job
    index: int
    sampling: SamplingParams
    tokens: list[int]
    prompt_len: int
    output: OutputTracker
    draws: Draws
    counts: TokenCounts | None = None
    constraint: TokenConstraint | None = None
    kv_len: int = 0
    slot: int = -1
    blocks: int = 0
    block_keys: list[bytes] = field(default_factory=list)
    unsent_text: str = ""

    @property
    def order(self) -> tuple[int, int, int]:
        """Runs before every sequence with a larger value."""
        return (self.job.request.priority, self.job.arrival, self.index)

    @property
    def output_len(self) -> int:
        return len(self.tokens) - self.prompt_len

    def append(self, token: int) -> None:
        """Take a chosen token as output."""
        self.tokens.append(token)
        if self.counts is not None:
            self.counts.add(token)
        if self.constraint is not None:
            self.constraint.accept(token)

    @property
    def is_catching_up(self) -> bool:
        """Whether KV of known output tokens is still missing after the latest run."""
        return self.kv_len < len(self.tokens)

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether its prefill still has to report on prompt tokens."""
        asked = self.sampling.prompt_logprobs is not None
        return asked and self.index == 0 and self.output_len == 0


def make_sequences(
    job: Job,
    detokenizer: Detokenizer,
    eos_token_ids: frozenset[int],
    grammar: Grammar | None = None,
) -> list[Sequence]:
    """The choices of a request: ``n`` of them, or the one that it resumes.

    Raises RequestRejected when a resumed output does not follow ``grammar``.
    """
    resume, sampling = job.request.resume, job.request.sampling
    indices = range(sampling.n) if resume is None else (resume.index,)
    sequences = [
        _make_sequence(job, index, detokenizer, eos_token_ids, grammar) for index in indices
    ]
    if resume is not None:
        _replay(sequences[0], resume)
    return sequences


def _make_sequence(
    job: Job,
    index: int,
    detokenizer: Detokenizer,
    eos_token_ids: frozenset[int],
    grammar: Grammar | None,
) -> Sequence:
    sampling = job.request.sampling
    prompt = list(job.request.prompt_ids)
    return Sequence(
        job=job,
        index=index,
        sampling=sampling,
        tokens=prompt,
        prompt_len=len(prompt),
        output=OutputTracker(sampling, detokenizer, eos_token_ids),
        draws=Draws(sampling.seed, index),
        counts=counts_for(sampling, prompt),
        constraint=grammar.constraint() if grammar is not None else None,
    )


def _replay(sequence: Sequence, resume: Resume) -> None:
    """Bring a fresh sequence to where another engine left it."""
    text = ""
    for token in resume.token_ids:
        sequence.append(token)
        text += sequence.output.take(token, sequence.output_len).text
    if sequence.constraint is not None and sequence.constraint.fault is not None:
        raise RequestRejected("the output to resume does not follow the constraint")
    sequence.unsent_text = text[resume.text_sent :]
