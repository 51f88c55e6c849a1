"""The seam's requests to vLLM's. Runs once per request."""

from __future__ import annotations

from collections import Counter
from typing import Any

from engine.base import (
    GenerateRequest,
    RequestRejected,
    SamplingParams,
    StructuredOutput,
)
from engine.structured.limits import Limits
from engine.structured.source import make_source
from engine.vllm import compat

GREEDY = 1e-5  # vLLM calls lower temperatures greedy, and then refuses several choices
_LIMITS = Limits()
_SEEDS = 2**62  # vLLM takes -1 for none and adds the choice's index


def replayable(request: GenerateRequest) -> bool:
    """Whether an output that another engine began has to be made again to be carried on.

    vLLM cannot be put into the middle of a seeded draw or of a grammar. Both repeat, so the
    output is generated once more from its start and the known part is left out.
    """
    if request.resume is None or not request.resume.token_ids:
        return False
    sampling = request.sampling
    if not can_be_carried_on(request):
        raise RequestRejected(
            "vLLM cannot carry on a structured output without a seed",
            param="response_format",
            code="unsupported_parameter",
        )
    return sampling.structured is not None or (
        sampling.seed is not None and sampling.temperature >= GREEDY
    )


def can_be_carried_on(request: GenerateRequest) -> bool:
    """Whether an output of this request that has begun can be gone on with; see ``replayable``."""
    sampling = request.sampling
    repeats = sampling.temperature < GREEDY or sampling.seed is not None
    return sampling.structured is None or repeats


def is_plain(request: GenerateRequest) -> bool:
    """Whether nothing but token ids is wanted of vLLM, for one output from its start."""
    sampling = request.sampling
    return (
        request.resume is None
        and sampling.n == 1
        and sampling.max_tokens > 0
        and sampling.logprobs is None
        and sampling.prompt_logprobs is None
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
    choices = 1 if sampling.temperature < GREEDY else sampling.n
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
