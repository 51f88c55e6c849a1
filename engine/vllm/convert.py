"""The seam's value types to vLLM's and back. Runs once per request and once per step."""

from __future__ import annotations

from collections import Counter
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
    StructuredOutput,
    TokenLogprob,
)
from engine.detokenize import Detokenizer, OutputText
from engine.structured.limits import Limits
from engine.structured.source import make_source
from engine.vllm import compat

_GREEDY = 1e-5  # vLLM calls lower temperatures greedy, and then refuses several choices
_LIMITS = Limits()
_SEEDS = 2**62  # vLLM takes -1 for none and adds the choice's index
# vLLM also ends an output when it repeats itself, if asked to by an engine argument.
_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "abort": "abort",
    "repetition": "stop",
}


def replayable(request: GenerateRequest) -> bool:
    """Whether an output that another engine began has to be made again to be carried on.

    vLLM cannot be put into the middle of a seeded draw or of a grammar. Both repeat, so the
    output is generated once more from its start and the known part is left out.
    """
    if request.resume is None or not request.resume.token_ids:
        return False
    sampling = request.sampling
    repeats = sampling.temperature < _GREEDY or sampling.seed is not None
    if sampling.structured is not None and not repeats:
        raise RequestRejected(
            "vLLM cannot carry on a structured output without a seed",
            param="response_format",
            code="unsupported_parameter",
        )
    return sampling.structured is not None or (
        sampling.seed is not None and sampling.temperature >= _GREEDY
    )


def prompt_ids(request: GenerateRequest, replay: bool) -> list[int]:
    """Token ids for vLLM: a resumed output that is not replayed is part of the prompt."""
    ids = list(request.prompt_ids)
    if request.resume is not None and not replay:
        ids += request.resume.token_ids
    return ids


def sampling_params(request: GenerateRequest, replay: bool) -> Any:
    """vLLM's ``SamplingParams`` for a request that ``check_request`` has passed.

    To vLLM a resumed request is the prompt plus the output so far (unless it is replayed),
    so what counts output is shortened or moved into ``logit_bias`` here.
    """
    from vllm.sampling_params import RequestOutputKind
    from vllm.sampling_params import SamplingParams as VllmParams

    sampling, resume = request.sampling, request.resume
    done = resume.token_ids if resume and not replay else ()
    choices = 1 if sampling.temperature < _GREEDY else sampling.n
    seed = sampling.seed
    if seed is not None:
        # A stream of its own for each choice, and for each point where one was resumed.
        seed = (seed + (resume.index if resume else 0) + len(done)) % _SEEDS
    params = VllmParams.from_optional(
        n=choices,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=sampling.repetition_penalty,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        seed=seed,
        # With one choice a stop string is found here and the request aborted; with several,
        # vLLM has to end that choice alone, for which it needs the text as well.
        stop=list(sampling.stop) if choices > 1 else None,
        stop_token_ids=list(sampling.stop_token_ids) or None,
        include_stop_str_in_output=sampling.include_stop_str_in_output,
        ignore_eos=sampling.ignore_eos,
        # vLLM makes one token at least; ``Outputs`` drops it when none is wanted.
        max_tokens=max(1, sampling.max_tokens - len(done)),
        min_tokens=max(0, sampling.min_tokens - len(done)),
        logprobs=sampling.logprobs,
        prompt_logprobs=sampling.prompt_logprobs,
        detokenize=choices > 1 and bool(sampling.stop),
        skip_special_tokens=sampling.skip_special_tokens,
        spaces_between_special_tokens=False,
        logit_bias=_bias(sampling, done),
        allowed_token_ids=list(sampling.allowed_token_ids) if sampling.allowed_token_ids else None,
        structured_outputs=structured(sampling.structured),
        output_kind=RequestOutputKind.DELTA,
        skip_clone=True,
    )
    if sampling.bad_words:
        compat.forbid_tokens(params, [list(word) for word in sampling.bad_words])
    return params


def _bias(sampling: SamplingParams, done: tuple[int, ...]) -> dict[int, float] | None:
    bias = dict(sampling.logit_bias)
    if sampling.presence_penalty or sampling.frequency_penalty:
        for token, count in Counter(done).items():
            penalty = sampling.presence_penalty + sampling.frequency_penalty * count
            bias[token] = bias.get(token, 0.0) - penalty
    return bias or None


def structured(wanted: StructuredOutput | None) -> Any:
    """vLLM's ``StructuredOutputsParams``, or None.

    Every kind goes as the grammar that the ONNX engine would enforce, to vLLM's guidance
    backend: vLLM's own JSON lets a model write white space without end, and what is bounded
    and how refusals read is the same then.

    Raises RequestRejected for what cannot be enforced.
    """
    if wanted is None:
        return None
    from vllm.sampling_params import StructuredOutputsParams

    return StructuredOutputsParams(grammar=make_source(wanted, _LIMITS).lark)


class Diverged(Exception):
    """A replayed output is not what the other engine had made."""


class Outputs:
    """Turns the ``RequestOutput``s of one request into deltas.

    Text is made here and not by vLLM: it is the same for every engine then, cheaper, and
    can begin in the middle of an output.

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
        self._nothing = sampling.max_tokens <= (len(resume.token_ids) if resume else 0)
        first = resume.index if resume else 0
        self._choices = [_Choice(sampling, detokenizer, first + i) for i in range(sampling.n)]
        if resume is not None:
            self._choices[0].resume(resume)

    @property
    def finished(self) -> bool:
        """Whether every choice has ended; vLLM may not know yet of a stop string."""
        return all(choice.finished for choice in self._choices)

    def deltas(self, output: Any) -> Iterator[Delta]:
        """Deltas of one ``RequestOutput``, at most one per choice.

        Raises EngineError for an output that vLLM gave up, and Diverged.
        """
        prompt = None
        if self._wants_prompt and output.prompt_logprobs:
            prompt, self._wants_prompt = self._prompt(output), False
        metrics = output.metrics
        queue_s = 0.0
        if metrics is not None and metrics.scheduled_ts:
            queue_s = max(0.0, metrics.scheduled_ts - metrics.queued_ts)
        cached = output.num_cached_tokens or 0
        for part in output.outputs:
            for delta in self._parts(part):
                delta.prompt_logprobs, prompt = prompt, None
                delta.cached_tokens = cached
                delta.queue_s = queue_s
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
        same = self._sampling.temperature < _GREEDY
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

    __slots__ = ("_carried", "_index", "_made", "_sampling", "_text", "finished")

    def __init__(self, sampling: SamplingParams, detokenizer: Detokenizer, index: int) -> None:
        self._sampling = sampling
        self._index = index
        self._text = OutputText(
            detokenizer.decoder(
                skip_special_tokens=sampling.skip_special_tokens,
                shown=sampling.shown_special_ids,
            ),
            sampling.stop,
            include=sampling.include_stop_str_in_output,
        )
        self._made = 0
        self._carried = ""
        self.finished = False

    def resume(self, resume: Resume) -> None:
        so_far = "".join([self._push(token) for token in resume.token_ids])
        self._carried = so_far[resume.text_sent :]

    def delta(self, ids: list[int], finish: FinishReason | None, stop: int | str | None) -> Delta:
        """The delta for new tokens; vLLM's end of the choice yields to an earlier stop."""
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
