"""vLLM's outputs to the seam's deltas. Runs once per step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.base import (
    Delta,
    EngineError,
    FinishReason,
    GenerateRequest,
    RequestRejected,
    Resume,
    SamplingParams,
    TokenLogprob,
)
from engine.checks import NOTHING_ALLOWED, narrows
from engine.detokenize import Detokenizer, OutputText
from engine.vllm.convert import GREEDY

# vLLM also ends an output when it repeats itself, if asked to by an engine argument.
_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "abort": "abort",
    "repetition": "stop",
}


class Diverged(Exception):
    """A replayed output is not what the other engine had made."""


class Outputs:
    """Turns the ``RequestOutput``s of one request into deltas.

    Text is made here and not by vLLM: it is the same for every engine then, cheaper, and
    can begin in the middle of an output.

    Attributes:
        finished: every choice has ended; vLLM may not know yet of a stop string.

    Args:
        request: what was asked.
        eos: ids whose end is an end-of-sequence and not a ``stop_reason``.
        detokenizer: of the model.
        replay: the output begins with what ``request.resume`` holds.
    """

    def __init__(
        self,
        request: GenerateRequest,
        eos: frozenset[int],
        detokenizer: Detokenizer,
        replay: bool,
    ) -> None:
        sampling, resume = request.sampling, request.resume
        self._sampling = sampling
        self._eos = eos - set(sampling.stop_token_ids)
        self._appended = len(resume.token_ids) if resume and not replay else 0
        self._wants_prompt = sampling.prompt_logprobs is not None
        self._expected = list(resume.token_ids) if resume and replay else []
        self._cached = 0
        self._queue_s = 0.0
        self.finished = False
        self._nothing = sampling.max_tokens <= (len(resume.token_ids) if resume else 0)
        first = resume.index if resume else 0
        self._choices = [_Choice(sampling, detokenizer, first + i) for i in range(sampling.n)]
        if resume is not None:
            self._choices[0].resume(resume)

    def plain(self, token_ids: list[int]) -> Delta:
        """The delta for tokens that came alone, where ``is_plain`` holds."""
        delta = self._choices[0].delta(token_ids, None, None)
        delta.cached_tokens = self._cached
        delta.queue_s = self._queue_s
        if delta.finish_reason is not None:
            self.finished = True
        return delta

    def deltas(self, output: Any) -> Iterator[Delta]:
        """Deltas of one ``RequestOutput``, at most one per choice.

        Raises RequestRejected or EngineError for an output that vLLM gave up, and Diverged.
        """
        prompt = None
        if self._wants_prompt and output.prompt_logprobs:
            prompt, self._wants_prompt = self._prompt(output), False
        metrics = output.metrics
        if metrics is not None and metrics.scheduled_ts:
            self._queue_s = max(0.0, metrics.scheduled_ts - metrics.queued_ts)
        self._cached = output.num_cached_tokens or 0
        for part in output.outputs:
            for delta in self._parts(part):
                delta.prompt_logprobs, prompt = prompt, None
                delta.cached_tokens = self._cached
                delta.queue_s = self._queue_s
                if delta.finish_reason is not None:
                    self.finished = all(choice.finished for choice in self._choices)
                yield delta

    def _parts(self, part: Any) -> Iterator[Delta]:
        """Deltas of one of vLLM's choices: several when they are all the same greedy one."""
        ids, logprobs = list(part.token_ids), part.logprobs
        finish = self._finish(part.finish_reason)
        stop: int | str | None = part.stop_reason
        if stop in self._eos or part.finish_reason == "repetition":
            stop = None
        if self._expected:
            known = len(self._expected)
            if ids[:known] != self._expected[: len(ids)] or (finish and len(ids) < known):
                raise Diverged
            self._expected = self._expected[len(ids) :]
            ids, logprobs = ids[known:], logprobs and logprobs[known:]
            if not ids and finish is None and not self._nothing:
                return
        if self._nothing:
            ids, finish, stop = [], "abort" if finish == "abort" else "length", None
        same = self._sampling.temperature < GREEDY
        for choice in self._choices if same else (self._choices[part.index],):
            if choice.finished:
                continue
            delta = choice.delta(ids, finish, stop)
            if self._sampling.logprobs is not None and logprobs is not None:
                # A stop string may have cut the tokens short.
                pairs = zip(delta.token_ids, logprobs, strict=False)
                limit = self._sampling.logprobs
                delta.logprobs = [token_logprob(token, found, limit) for token, found in pairs]
            yield delta

    def _finish(self, reason: str | None) -> FinishReason | None:
        if reason is None:
            return None
        if reason == "error" and narrows(self._sampling):
            # vLLM takes token 0 where none is left, and its grammar then refuses that.
            raise RequestRejected(NOTHING_ALLOWED)
        if reason not in _FINISH:
            raise EngineError(f"vLLM could not finish the request (it says: {reason})")
        return _FINISH[reason]

    def _prompt(self, output: Any) -> list[TokenLogprob | None]:
        limit = self._sampling.prompt_logprobs or 0
        # vLLM's own ids: a placeholder for an image has become many.
        found = zip(output.prompt_token_ids, output.prompt_logprobs, strict=True)
        entries = [
            None if entry is None else token_logprob(token, entry, limit) for token, entry in found
        ]
        return entries[: len(entries) - self._appended]


class _Choice:
    """Text and end of one choice."""

    __slots__ = ("_carried", "_decode", "_index", "_made", "_sampling", "_text", "finished")

    def __init__(self, sampling: SamplingParams, detokenizer: Detokenizer, index: int) -> None:
        self._sampling = sampling
        self._index = index
        decoder = detokenizer.decoder(
            skip_special_tokens=sampling.skip_special_tokens, shown=sampling.shown_special_ids
        )
        self._text = OutputText(decoder, sampling.stop, include=sampling.include_stop_str_in_output)
        self._decode = None if sampling.stop else decoder.push
        self._made = 0
        self._carried = ""
        self.finished = False

    def resume(self, resume: Resume) -> None:
        so_far = "".join([self._push(token) for token in resume.token_ids])
        self._carried = so_far[resume.text_sent :]

    def delta(self, ids: list[int], finish: FinishReason | None, stop: int | str | None) -> Delta:
        """The delta for new tokens; vLLM's end of the choice yields to an earlier stop."""
        if finish is None and self._decode is not None and not self._carried:
            if len(ids) == 1:
                return Delta(self._index, ids, self._decode(ids[0]))
            return Delta(self._index, ids, "".join([self._decode(token) for token in ids]))
        text, self._carried = self._carried, ""
        # The token that ended an output has no text; vLLM's own stop strings are text.
        ended = finish == "stop" and not isinstance(stop, str)
        silent = ended and not self._sampling.include_stop_str_in_output
        for at, token in enumerate(ids):
            if silent and at == len(ids) - 1:
                break
            text += self._push(token)
            if self._text.stopped_by is not None:
                ids, finish, stop = ids[: at + 1], "stop", self._text.stopped_by
                break
        if finish is not None and self._text.stopped_by is None:
            text += self._text.flush()
        self.finished = finish is not None
        return Delta(self._index, list(ids), text, finish_reason=finish, stop_reason=stop)

    def _push(self, token: int) -> str:
        self._made += 1
        return self._text.push(token, armed=self._made > self._sampling.min_tokens)


def token_logprob(token: int, found: Any, limit: int) -> TokenLogprob:
    """One of vLLM's ``{token id: Logprob}``; it holds the token itself and the likeliest."""
    top = sorted(found.items(), key=lambda item: item[1].rank or 0)
    return TokenLogprob(
        token,
        found[token].logprob,
        tuple((other, entry.logprob) for other, entry in top[:limit]),
    )
