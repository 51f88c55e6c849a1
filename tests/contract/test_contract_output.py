"""What comes out of an engine: tokens, text, ends, log-probabilities."""

from __future__ import annotations

import asyncio

import pytest
from engine_calls import ask, ask_all, prompt, request

from engine.base import Engine, Resume


async def test_text_is_the_decoded_tokens(engine: Engine) -> None:
    answer = await ask(engine, max_tokens=40)
    assert answer.text == engine.info.tokenizer.decode(answer.token_ids)


async def test_greedy_answers_repeat(engine: Engine) -> None:
    first, second = await ask(engine), await ask(engine)
    assert first.token_ids == second.token_ids


@pytest.mark.parametrize("count", [1, 2, 17])
async def test_max_tokens_is_exact(engine: Engine, count: int) -> None:
    answer = await ask(engine, max_tokens=count)
    assert len(answer.token_ids) == count
    assert answer.last.finish_reason == "length"
    assert answer.last.stop_reason is None


async def test_max_tokens_of_zero_gives_an_end_and_nothing_else(engine: Engine) -> None:
    answer = await ask(engine, max_tokens=0)
    assert (answer.token_ids, answer.text) == ([], "")
    assert answer.last.finish_reason == "length"


async def test_end_of_sequence_ends_without_a_reason_or_text(engine: Engine) -> None:
    eos = min(engine.info.eos_token_ids)
    answer = await ask(engine, allowed_token_ids=(eos,), ignore_eos=False)
    assert answer.token_ids == [eos]
    assert answer.text == ""
    assert (answer.last.finish_reason, answer.last.stop_reason) == ("stop", None)


async def test_ignore_eos_goes_on(engine: Engine) -> None:
    eos = min(engine.info.eos_token_ids)
    answer = await ask(engine, allowed_token_ids=(eos,), max_tokens=5)
    assert answer.token_ids == [eos] * 5
    assert answer.last.finish_reason == "length"


async def test_special_tokens_are_text_when_asked_for(engine: Engine) -> None:
    eos = min(engine.info.eos_token_ids)
    answer = await ask(engine, allowed_token_ids=(eos,), max_tokens=2, skip_special_tokens=False)
    assert answer.text == engine.info.tokenizer.id_to_token(eos) * 2


async def test_allowed_token_ids_are_the_only_ones(engine: Engine) -> None:
    allowed = (65, 66, 67)
    answer = await ask(engine, allowed_token_ids=allowed, temperature=1.0)
    assert set(answer.token_ids) <= set(allowed)


@pytest.mark.parametrize("length", [1, 3, 8])
async def test_stop_string_ends_the_text_right_before_it(engine: Engine, length: int) -> None:
    full = await ask(engine, max_tokens=60)
    stop = full.text[20 : 20 + length]
    answer = await ask(engine, max_tokens=60, stop=("\0never", stop))
    assert answer.text == full.text[: full.text.index(stop)]
    assert (answer.last.finish_reason, answer.last.stop_reason) == ("stop", stop)
    assert answer.token_ids == full.token_ids[: len(answer.token_ids)]


async def test_nothing_of_a_stop_string_is_yielded_before_it_ends(engine: Engine) -> None:
    full = await ask(engine, max_tokens=60)
    stop = full.text[20:30]
    shown = ""
    async for delta in engine.generate(request(max_tokens=60, stop=(stop,))):
        shown += delta.text
        assert full.text[: full.text.index(stop)].startswith(shown)


async def test_stop_string_may_be_included(engine: Engine) -> None:
    full = await ask(engine, max_tokens=60)
    stop = full.text[20:23]
    answer = await ask(engine, max_tokens=60, stop=(stop,), include_stop_str_in_output=True)
    assert answer.text == full.text[: full.text.index(stop) + len(stop)]


async def test_text_held_back_for_a_stop_string_comes_at_the_end(engine: Engine) -> None:
    full = await ask(engine, max_tokens=40)
    almost = full.text[-4:] + "\0"
    answer = await ask(engine, max_tokens=40, stop=(almost,))
    assert answer.text == full.text
    assert answer.last.finish_reason == "length"


async def test_stop_token_ends_and_is_named(engine: Engine) -> None:
    full = await ask(engine)
    stop = full.token_ids[10]
    answer = await ask(engine, stop_token_ids=(stop,))
    assert answer.token_ids == full.token_ids[: full.token_ids.index(stop) + 1]
    assert (answer.last.finish_reason, answer.last.stop_reason) == ("stop", stop)


async def test_min_tokens_keeps_stops_from_counting(engine: Engine) -> None:
    full = await ask(engine)
    stop = full.token_ids[0]
    by_id = await ask(engine, stop_token_ids=(stop,), min_tokens=9)
    assert len(by_id.token_ids) >= 9
    by_text = await ask(engine, stop=(full.text[0],), min_tokens=9)
    assert len(by_text.token_ids) >= 9


async def test_every_choice_comes_and_ends(engine: Engine) -> None:
    answers = await ask_all(engine, request(n=5, temperature=1.0, seed=1))
    assert [len(answer.token_ids) for answer in answers] == [24] * 5
    assert len({tuple(answer.token_ids) for answer in answers}) > 1


async def test_greedy_choices_are_equal(engine: Engine) -> None:
    answers = await ask_all(engine, request(n=3))
    assert answers[0].token_ids == answers[1].token_ids == answers[2].token_ids


async def test_more_choices_than_seats_still_come(engine: Engine) -> None:
    answers = await ask_all(engine, request(n=engine.load().max_running + 3, max_tokens=4))
    assert {len(answer.token_ids) for answer in answers} == {4}


async def test_a_seed_repeats_whatever_else_runs(engine: Engine) -> None:
    seeded = {"temperature": 1.0, "seed": 7, "n": 2}
    alone = await ask_all(engine, request(**seeded))
    mates = [ask(engine, prompt(30, salt), temperature=1.0) for salt in range(1, 5)]
    crowded, *_ = await asyncio.gather(ask_all(engine, request(**seeded)), *mates)
    for before, after in zip(alone, crowded, strict=True):
        assert before.token_ids == after.token_ids


async def test_seeds_differ(engine: Engine) -> None:
    answers = [await ask(engine, temperature=1.0, seed=seed) for seed in (1, 2, -3)]
    assert len({tuple(answer.token_ids) for answer in answers}) == 3


@pytest.mark.parametrize("alternatives", [0, 1, 20])
async def test_logprobs_have_one_entry_per_token(engine: Engine, alternatives: int) -> None:
    if alternatives > engine.info.capabilities.max_logprobs:
        pytest.skip("the engine reports fewer alternatives")
    answer = await ask(engine, logprobs=alternatives)
    assert [entry.token_id for entry in answer.logprobs] == answer.token_ids
    for delta in answer.deltas:
        assert len(delta.logprobs or ()) == len(delta.token_ids)
    for entry in answer.logprobs:
        values = [value for _, value in entry.top]
        assert len(entry.top) == alternatives
        assert values == sorted(values, reverse=True)
        assert entry.logprob <= 0
        if alternatives:
            assert entry.top[0] == (entry.token_id, entry.logprob)


async def test_no_logprobs_unless_asked_for(engine: Engine) -> None:
    answer = await ask(engine)
    assert all(delta.logprobs is None for delta in answer.deltas)
    assert all(delta.prompt_logprobs is None for delta in answer.deltas)


async def test_prompt_logprobs_come_once_and_cover_the_prompt(engine: Engine) -> None:
    if not engine.info.capabilities.prompt_logprobs:
        pytest.skip("the engine does not report on the prompt")
    asked = prompt(50)
    answer = await ask(engine, asked, prompt_logprobs=3, max_tokens=5)
    first, *later = answer.deltas
    assert first.prompt_logprobs is not None
    assert first.prompt_logprobs[0] is None
    entries = first.prompt_logprobs[1:]
    assert [entry.token_id for entry in entries if entry] == asked[1:]
    assert all(entry is not None and len(entry.top) == 3 for entry in entries)
    assert all(delta.prompt_logprobs is None for delta in later)


async def test_cached_tokens_are_reported_and_change_nothing(engine: Engine) -> None:
    asked = prompt(100, salt=9)
    first = await ask(engine, asked)
    second = await ask(engine, asked)
    assert first.last.cached_tokens == 0
    assert 0 < second.last.cached_tokens < len(asked)
    assert {delta.cached_tokens for delta in second.deltas} == {second.last.cached_tokens}
    assert second.token_ids == first.token_ids


async def test_a_salt_keeps_prefixes_apart(engine: Engine) -> None:
    asked = prompt(100, salt=10)
    await ask(engine, asked, cache_salt="a")
    assert (await ask(engine, asked, cache_salt="b")).last.cached_tokens == 0
    assert (await ask(engine, asked)).last.cached_tokens == 0
    assert (await ask(engine, asked, cache_salt="a")).last.cached_tokens > 0


@pytest.mark.parametrize("done", [0, 1, 13])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 3}])
async def test_a_generation_can_be_carried_on(
    engine: Engine, done: int, options: dict[str, float]
) -> None:
    full = await ask(engine, max_tokens=30, **options)
    tokens = full.token_ids[:done]
    sent = len(engine.info.tokenizer.decode(tokens).rstrip("\ufffd"))
    rest = await ask(engine, max_tokens=30, resume=Resume(tuple(tokens), sent), **options)
    assert rest.token_ids == full.token_ids[done:]
    assert rest.text == full.text[sent:]


async def test_a_carried_on_choice_keeps_its_index(engine: Engine) -> None:
    asked = request(n=1, resume=Resume((65, 66), 2, index=4))
    indices = {delta.index async for delta in engine.generate(asked)}
    assert indices == {4}
