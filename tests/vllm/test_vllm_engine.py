"""The engine on a real vLLM: what comes out."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from vllm_helpers import one, prompt, request, run

from engine.base import RequestRejected, Resume, StructuredOutput
from engine.vllm.engine import VllmEngine

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]


async def test_info_describes_the_model(engine: VllmEngine) -> None:
    info = engine.info
    assert info.engine == "vllm"
    assert info.device.startswith("cpu")
    assert info.dtype == "float32"
    assert info.max_model_len == 2048
    assert info.vocab_size >= info.tokenizer.get_vocab_size()
    assert "add_generation_prompt" in (info.chat_template or "")
    assert info.template_globals["eos_token"]
    assert info.eos_token_ids
    assert info.capabilities.structured_output
    assert info.capabilities.lora
    assert not info.capabilities.images
    assert engine.progress.state == "ready"
    await engine.check_health()


async def test_greedy_is_repeatable_and_text_is_that_of_the_tokens(engine: VllmEngine) -> None:
    first = await one(engine, request(prompt(20), 40, ignore_eos=True))
    again = await one(engine, request(prompt(20), 40, ignore_eos=True))
    assert first.token_ids == again.token_ids
    assert len(first.token_ids) == 40
    assert first.text == engine.info.tokenizer.decode(first.token_ids)
    assert first.last.finish_reason == "length"
    assert first.last.stop_reason is None


async def test_most_tokens_go_past_vllms_own_front_end_and_are_the_same(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine._built is not None
    processor = engine._built.llm.output_processor
    vllms_own = processor.process_outputs
    processed: list[int] = []

    def counting(outputs: list[Any], *args: Any, **kwargs: Any) -> Any:
        processed.append(sum(len(output.new_token_ids) for output in outputs))
        return vllms_own(outputs, *args, **kwargs)

    monkeypatch.setattr(processor, "process_outputs", counting)
    short = await one(engine, request(prompt(20), 40, ignore_eos=True))
    assert 2 <= sum(processed) <= 4  # the first and the last; an event may add to them
    processed.clear()
    long = await one(engine, request(prompt(20), 40, ignore_eos=True, logprobs=0))
    assert sum(processed) == 40
    assert short.token_ids == long.token_ids
    assert short.text == long.text
    assert short.last.cached_tokens == short.deltas[0].cached_tokens
    assert len({delta.queue_s for delta in short.deltas}) == 1


async def test_choices_differ_and_a_seed_repeats_them(engine: VllmEngine) -> None:
    asked = {"n": 3, "seed": 11, "temperature": 1.0, "ignore_eos": True}
    first = await run(engine, request(prompt(12), 12, **asked))
    again = await run(engine, request(prompt(12), 12, **asked))
    assert len(first) == 3
    assert [x.token_ids for x in first] == [x.token_ids for x in again]
    assert len({tuple(x.token_ids) for x in first}) == 3


async def test_logprobs_of_output_and_prompt(engine: VllmEngine) -> None:
    ids = prompt(9)
    output = await one(engine, request(ids, 6, logprobs=3, prompt_logprobs=2, ignore_eos=True))
    logprobs = [entry for delta in output.deltas for entry in delta.logprobs or ()]
    assert [entry.token_id for entry in logprobs] == output.token_ids
    for entry in logprobs:
        assert len(entry.top) == 3
        assert entry.top[0] == (entry.token_id, entry.logprob)  # greedy took the likeliest
        assert [p for _, p in entry.top] == sorted((p for _, p in entry.top), reverse=True)
        assert entry.logprob <= 0
    about_prompt = output.deltas[0].prompt_logprobs
    assert about_prompt is not None
    assert about_prompt[0] is None
    assert [entry.token_id for entry in about_prompt[1:] if entry] == ids[1:]
    assert all(len(entry.top) == 2 for entry in about_prompt[1:] if entry)
    assert all(delta.prompt_logprobs is None for delta in output.deltas[1:])


async def test_a_logprob_of_the_chosen_token_alone(engine: VllmEngine) -> None:
    output = await one(engine, request(prompt(9), 4, logprobs=0))
    entries = [entry for delta in output.deltas for entry in delta.logprobs or ()]
    assert entries
    assert all(entry.top == () for entry in entries)


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("wanted", "holds"),
    [
        (
            StructuredOutput(json_schema=json.dumps(SCHEMA)),
            lambda text: set(json.loads(text)) == {"name", "age"},
        ),
        (StructuredOutput(regex="[a-c]{3}-[0-9]{2}"), re.compile("[a-c]{3}-[0-9]{2}$").match),
        (StructuredOutput(choice=("red", "green")), lambda text: text in ("red", "green")),
        (StructuredOutput(grammar='start: "x" /[yz]+/ "!"'), re.compile("x[yz]+!$").match),
    ],
    ids=["json_schema", "regex", "choice", "grammar"],
)
async def test_structured_output(engine: VllmEngine, wanted, holds) -> None:
    # A bias against the characters that may go on for ever keeps random models short.
    tokenizer = engine.info.tokenizer
    endless = [tokenizer.token_to_id(x) for x in ("Ġ", "Ċ", "č", "ĉ", *"0123456789yz")]
    bias = {token: -20.0 for token in endless if token is not None}
    output = await one(engine, request(prompt(8), 200, structured=wanted, logit_bias=bias))
    assert output.last.finish_reason == "stop", output.text
    assert holds(output.text), output.text


async def test_a_stop_string_ends_the_text_before_it(engine: VllmEngine) -> None:
    whole = await one(engine, request(prompt(20), 40, ignore_eos=True))
    stop = whole.text[10:12]
    cut = whole.text.index(stop)
    for n in (1, 2):
        for output in await run(
            engine, request(prompt(20), 40, ignore_eos=True, stop=(stop,), n=n)
        ):
            assert output.text == whole.text[:cut]
            assert output.last.finish_reason == "stop"
            assert output.last.stop_reason == stop
    kept = await one(
        engine,
        request(prompt(20), 40, ignore_eos=True, stop=(stop,), include_stop_str_in_output=True),
    )
    assert kept.text == whole.text[: cut + len(stop)]


async def test_a_stop_token_is_named_and_eos_is_not(engine: VllmEngine) -> None:
    whole = await one(engine, request(prompt(20), 10, ignore_eos=True))
    token = whole.token_ids[4]
    first = whole.token_ids.index(token)
    output = await one(engine, request(prompt(20), 10, ignore_eos=True, stop_token_ids=(token,)))
    assert output.token_ids == whole.token_ids[: first + 1]
    assert output.last.stop_reason == token
    eos = min(engine.info.eos_token_ids)
    ended = await one(engine, request(prompt(20), 10, logit_bias={eos: 100.0}))
    assert ended.last.finish_reason == "stop"
    assert ended.last.stop_reason is None
    assert ended.text == ""


async def test_forbidden_words_and_allowed_tokens(engine: VllmEngine) -> None:
    whole = await one(engine, request(prompt(20), 10, ignore_eos=True))
    pair = tuple(whole.token_ids[:2])
    output = await one(engine, request(prompt(20), 10, ignore_eos=True, bad_words=(pair,)))
    assert output.token_ids[0] == pair[0]
    assert output.token_ids[1] != pair[1]
    few = await one(engine, request(prompt(20), 10, ignore_eos=True, allowed_token_ids=(65, 66)))
    assert set(few.token_ids) <= {65, 66}


async def test_a_shared_prefix_is_cached_per_salt(engine: VllmEngine) -> None:
    ids = prompt(400, seed=3)
    first = await one(engine, request(ids, 2, cache_salt="a"))
    second = await one(engine, request(ids, 2, cache_salt="a"))
    other = await one(engine, request(ids, 2, cache_salt="b"))
    assert first.last.cached_tokens == 0
    assert second.last.cached_tokens >= 256
    assert other.last.cached_tokens == 0
    assert engine.load().prefix_hits >= 256


async def test_an_adapter_changes_the_output_of_its_requests_only(engine: VllmEngine) -> None:
    base = request(prompt(20), 12, ignore_eos=True)
    plain, tuned = await asyncio.gather(
        one(engine, base), one(engine, request(prompt(20), 12, ignore_eos=True, lora="loud"))
    )
    assert plain.token_ids == (await one(engine, base)).token_ids
    assert plain.token_ids != tuned.token_ids


async def test_what_can_never_succeed_is_rejected_at_once(engine: VllmEngine) -> None:
    for asked, param, code in (
        (request(prompt(2048), 1), None, "context_length_exceeded"),
        (request([engine.info.vocab_size]), None, "invalid_value"),
        (request([]), None, "invalid_value"),
        (request(prompt(5), lora="absent"), "model", "model_not_found"),
        (request(prompt(5), logprobs=1000), "top_logprobs", "invalid_value"),
        (
            request(prompt(5), structured=StructuredOutput(regex="(")),
            "structured_outputs",
            "invalid_value",
        ),
        (request(prompt(5), images=(b"",)), "messages", "unsupported_parameter"),
    ):
        with pytest.raises(RequestRejected) as caught:
            await run(engine, asked)
        assert caught.value.code == code, caught.value
        assert caught.value.param == param, caught.value
    assert engine.load().running + engine.load().waiting == 0


def first_seen_after(text: str, known: int) -> str | None:
    """A piece of three characters or more that begins at ``known`` or later and nowhere before."""
    pieces = (
        text[i : i + length]
        for length in range(3, len(text) - known)
        for i in range(known, len(text) - length)
    )
    return next((piece for piece in pieces if text.index(piece) >= known), None)


async def test_a_resumed_generation_goes_on_where_it_was(engine: VllmEngine) -> None:
    # Without an end, which has no text; and some prompts make a model repeat itself.
    endless = {
        "frequency_penalty": 0.8,
        "logit_bias": dict.fromkeys(engine.info.eos_token_ids, -100.0),
    }
    for seed in range(10):
        ids = prompt(20, seed)
        whole = await one(engine, request(ids, 40, ignore_eos=True, **endless))
        done = tuple(whole.token_ids[:15])
        known = len(engine.info.tokenizer.decode(list(done)))
        # Had the stop come earlier, the generation would have ended there.
        if (stop := first_seen_after(whole.text, known)) is not None:
            break
    assert stop is not None
    sent = len(engine.info.tokenizer.decode(list(done[:9])))
    resumed = request(ids, 40, ignore_eos=True, resume=Resume(done, sent, index=1), **endless)
    output = await one(engine, resumed)
    assert output.token_ids == whole.token_ids[15:]
    assert output.text == whole.text[sent:]
    assert {delta.index for delta in output.deltas} == {1}
    stopped = await one(
        engine,
        request(ids, 40, ignore_eos=True, stop=(stop,), resume=Resume(done, sent), **endless),
    )
    assert stopped.text == whole.text[sent : whole.text.index(stop, sent)]
    assert stopped.last.stop_reason == stop
