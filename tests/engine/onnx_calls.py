"""Ask an engine and gather what it yields; make sequences without an engine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence as Items
from dataclasses import dataclass
from typing import Any

from random_llama import EOS_ID, byte_tokenizer

from engine.base import Delta, Engine, GenerateRequest, SamplingParams
from engine.detokenize import Detokenizer
from engine.mailbox import Mailbox
from engine.onnx.sequence import Job, Sequence, make_sequences

_numbers = itertools.count()
DETOKENIZER = Detokenizer(byte_tokenizer(384))


@dataclass
class Answer:
    """What one choice yielded."""

    token_ids: list[int]
    text: str
    last: Delta
    deltas: list[Delta]


def prompt(length: int, salt: int = 0) -> list[int]:
    return [(7 * i + 31 * salt + 5 * salt * i) % 200 + 20 for i in range(length)]


def request(prompt_ids: Items[int], **options: Any) -> GenerateRequest:
    names = ("cache_salt", "priority", "resume")
    own = {name: options.pop(name) for name in names if name in options}
    defaults = {"max_tokens": 16, "temperature": 0.0, "ignore_eos": True}
    sampling = SamplingParams(**(defaults | options))
    return GenerateRequest(f"request-{next(_numbers)}", prompt_ids, sampling, **own)


async def ask(engine: Engine, prompt_ids: Items[int], **options: Any) -> Answer:
    """The answer of a request with one choice."""
    deltas = [delta async for delta in engine.generate(request(prompt_ids, **options))]
    return Answer(
        [token for delta in deltas for token in delta.token_ids],
        "".join(delta.text for delta in deltas),
        deltas[-1],
        deltas,
    )


def sequences(
    prompt_ids: Items[int] = (1, 2, 3), arrival: int | None = None, **options: Any
) -> list[Sequence]:
    """All choices of a request, queued nowhere."""
    asked = request(prompt_ids, **options)
    job = Job(asked, Mailbox(), next(_numbers) if arrival is None else arrival)
    job.sequences = make_sequences(job, DETOKENIZER, frozenset([EOS_ID]))
    return list(job.sequences)


def sequence(
    prompt_ids: Items[int] = (1, 2, 3), output: Items[int] = (), **options: Any
) -> Sequence:
    """A sequence that has put out ``output`` already."""
    made = sequences(prompt_ids, **options)[0]
    for token in output:
        made.append(token)
    return made
