"""vLLM's outputs and errors to the seam's, without vLLM."""

from __future__ import annotations

from types import SimpleNamespace as Bag
from typing import Any

import pytest
import vllm_tiny as tiny
from vllm_helpers import prompt, request

from engine.base import EngineError, RequestRejected, Resume, StructuredOutput
from engine.detokenize import Detokenizer
from engine.vllm import convert
from engine.vllm.outputs import Diverged, Outputs

EOS = frozenset({tiny.EOS, tiny.IM_END})


@pytest.fixture(scope="module")
def detokenizer() -> Detokenizer:
    return Detokenizer(tiny.byte_tokenizer())


def ids(text: str) -> list[int]:
    return [int(i) for i in tiny.byte_tokenizer().encode(text).ids]


def output(
    tokens: list[int], finish: str | None = None, stop: Any = None, index: int = 0, **more: Any
) -> Bag:
    part = Bag(index=index, token_ids=tokens, finish_reason=finish, stop_reason=stop, logprobs=None)
    fields: dict[str, Any] = {
        "prompt_logprobs": None,
        "metrics": None,
        "num_cached_tokens": None,
        "outputs": [part],
    }
    return Bag(**(fields | more))


def test_greedy_choices_are_one_to_vllm_and_all_to_the_caller(detokenizer: Detokenizer) -> None:
    outputs = Outputs(request(prompt(4), n=3), EOS, detokenizer, False)
    deltas = list(outputs.deltas(output(ids("xyz"), "length")))
    assert [delta.index for delta in deltas] == [0, 1, 2]
    assert {delta.text for delta in deltas} == {"xyz"}
    assert outputs.finished


def test_queue_time_and_cached_tokens_are_passed_on(detokenizer: Detokenizer) -> None:
    outputs = Outputs(request(prompt(4)), EOS, detokenizer, False)
    found = output(ids("x"), metrics=Bag(scheduled_ts=5.5, queued_ts=5.0), num_cached_tokens=128)
    (delta,) = outputs.deltas(found)
    assert (delta.queue_s, delta.cached_tokens) == (0.5, 128)


def test_an_output_that_vllm_gave_up_is_an_error(detokenizer: Detokenizer) -> None:
    outputs = Outputs(request(prompt(4)), EOS, detokenizer, False)
    with pytest.raises(EngineError, match="error"):
        list(outputs.deltas(output([], "error")))
    (delta,) = outputs.deltas(output([], "repetition", "detected"))
    assert (delta.finish_reason, delta.stop_reason) == ("stop", None)


def test_no_output_wanted_gives_an_end_alone(detokenizer: Detokenizer) -> None:
    outputs = Outputs(request(prompt(4), 0), EOS, detokenizer, False)
    (delta,) = outputs.deltas(output(ids("x"), "length"))
    assert (delta.token_ids, delta.text, delta.finish_reason) == ([], "", "length")


def test_a_replay_leaves_the_known_part_out(detokenizer: Detokenizer) -> None:
    known = tuple(ids("0123"))
    asked = request(prompt(4), temperature=1.0, seed=1, resume=Resume(known, 3, index=2))
    assert convert.replayable(asked)
    assert convert.prompt_ids(asked, True) == asked.prompt_ids
    outputs = Outputs(asked, EOS, detokenizer, True)
    assert list(outputs.deltas(output(ids("01")))) == []
    (delta,) = outputs.deltas(output(ids("2345")))
    # Of the known text one character had not been sent.
    assert (delta.index, delta.token_ids, delta.text) == (2, ids("45"), "345")
    (last,) = outputs.deltas(output(ids("6"), "length"))
    assert (last.text, last.finish_reason) == ("6", "length")


@pytest.mark.parametrize(("tokens", "finish"), [("09", None), ("01", "stop")])
def test_a_replay_that_differs_is_noticed(
    detokenizer: Detokenizer, tokens: str, finish: str | None
) -> None:
    asked = request(prompt(4), temperature=1.0, seed=1, resume=Resume(tuple(ids("0123")), 4))
    outputs = Outputs(asked, EOS, detokenizer, True)
    with pytest.raises(Diverged):
        list(outputs.deltas(output(ids(tokens), finish)))


def test_what_is_carried_on_how() -> None:
    resume = Resume((1, 2), 2)
    wanted = StructuredOutput(json_object=True)
    assert not convert.replayable(request(prompt(4)))
    assert not convert.replayable(request(prompt(4), resume=resume))
    assert not convert.replayable(request(prompt(4), temperature=1.0, resume=resume))
    assert convert.replayable(request(prompt(4), structured=wanted, resume=resume))
    lost = request(prompt(4), temperature=1.0, structured=wanted, resume=resume)
    with pytest.raises(RequestRejected):
        convert.replayable(lost)
    assert not convert.can_be_carried_on(lost)
    assert convert.can_be_carried_on(request(prompt(4), structured=wanted))
    plain = request(prompt(4), resume=resume)
    assert convert.prompt_ids(plain, False) == [*plain.prompt_ids, 1, 2]


def test_logprobs_are_cut_where_a_stop_string_ends_the_output(detokenizer: Detokenizer) -> None:
    asked = request(prompt(4), stop=("34",), logprobs=1)
    outputs = Outputs(asked, EOS, detokenizer, False)
    tokens = ids("12345")
    found = output(tokens)
    found.outputs[0].logprobs = [{t: Bag(logprob=-0.5, rank=1)} for t in tokens]
    (delta,) = outputs.deltas(found)
    assert (delta.text, delta.stop_reason) == ("12", "34")
    assert delta.token_ids == tokens[:4]
    assert delta.logprobs is not None
    assert [entry.token_id for entry in delta.logprobs] == tokens[:4]


def test_prompt_logprobs_follow_vllms_own_ids(detokenizer: Detokenizer) -> None:
    asked = request([10, 20], prompt_logprobs=0, resume=Resume((30,), 0))
    outputs = Outputs(asked, EOS, detokenizer, False)
    entries = [None, {20: Bag(logprob=-1.0, rank=3)}, {30: Bag(logprob=-2.0, rank=1)}]
    found = output(ids("x"), prompt_logprobs=entries, prompt_token_ids=[10, 20, 30])
    (delta,) = outputs.deltas(found)
    assert delta.prompt_logprobs is not None
    assert [entry and entry.token_id for entry in delta.prompt_logprobs] == [None, 20]
    (later,) = outputs.deltas(output(ids("y"), "length"))
    assert later.prompt_logprobs is None
