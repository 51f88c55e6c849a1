"""Chunks follow from what steps cost."""

from __future__ import annotations

import pytest

from engine.onnx.pacing import MIN_CHUNK, Pacer

TOKEN_S = 0.001


def pacer(itl_ratio: float = 4.0, max_chunk: int = 512) -> Pacer:
    made = Pacer(itl_ratio, max_chunk)
    made.prefilled(100, 100 * TOKEN_S)
    made.open_gap()
    return made


def step(made: Pacer, width: int, seconds: float) -> None:
    made.decoded(width, seconds)
    made.open_gap()


def test_before_anything_is_measured_chunks_are_small() -> None:
    assert Pacer(4.0, 512).room(0) <= 16
    assert pacer().room(3) == MIN_CHUNK


def test_a_tiny_first_prompt_is_learned_from() -> None:
    made = Pacer(4.0, 512)
    assert made.room(0) > 1
    made.prefilled(1, 0.010)
    made.open_gap()
    assert made.room(0) == 25


@pytest.mark.parametrize("ratio", [2.0, 4.0, 6.0])
def test_a_chunk_fills_the_gap_that_the_ratio_leaves(ratio: float) -> None:
    made = pacer(ratio)
    step(made, 4, 0.040)
    gap = 0.040 + made.room(4) * TOKEN_S
    assert 0.040 * ratio - 2 * TOKEN_S < gap <= 0.040 * ratio + TOKEN_S / 2


def test_several_short_prompts_share_a_gap_until_it_is_half_full() -> None:
    made = pacer()
    step(made, 4, 0.020)
    room = made.room(4)
    made.prefilled(10, 10 * TOKEN_S)
    assert made.room(4) == pytest.approx(room - 10, abs=1)
    made.prefilled(25, 25 * TOKEN_S)
    assert made.room(4) == 0
    step(made, 4, 0.020)
    assert made.room(4) == room


def test_an_unknown_width_takes_the_nearest_known_one() -> None:
    made = pacer()
    step(made, 1, 0.010)
    step(made, 16, 0.100)
    assert made.room(2) == made.room(1)
    assert made.room(12) == made.room(16)


def test_without_decoding_chunks_are_big_and_bounded() -> None:
    assert pacer().room(0) > 200
    fast = Pacer(4.0, 512)
    fast.prefilled(100, 0.001)
    assert fast.room(0) == 512


def test_slow_models_still_advance() -> None:
    slow = Pacer(4.0, 512)
    slow.prefilled(1, 5.0)
    step(slow, 1, 0.001)
    assert slow.room(0) == slow.room(1) == MIN_CHUNK


def test_a_step_right_after_prefill_is_not_the_usual_gap_but_part_of_the_long_one() -> None:
    made = pacer()
    for _ in range(3):
        step(made, 1, 0.010)
    for _ in range(20):
        made.prefilled(10, 10 * TOKEN_S)
        step(made, 1, 0.015)
    assert made.room(1) == pytest.approx(4 * 10 - 15, abs=1)


def test_prefill_is_never_starved_by_slow_steps() -> None:
    made = pacer()
    step(made, 1, 0.010)
    for _ in range(3):
        made.prefilled(10, 10 * TOKEN_S)
        step(made, 1, 1.0)
    assert made.room(1) == MIN_CHUNK


def test_dearer_tokens_make_smaller_chunks_and_a_single_stall_does_not() -> None:
    made = pacer()
    step(made, 1, 0.040)
    before = made.room(1)
    for _ in range(3):
        made.prefilled(before, before * TOKEN_S)
        made.open_gap()
    made.prefilled(before, 1.0)
    made.open_gap()
    assert made.room(1) == before
    for _ in range(2):
        made.prefilled(before, before * TOKEN_S * 2)
        made.open_gap()
    assert made.room(1) == pytest.approx(before / 2, abs=1)


def test_a_short_last_chunk_does_not_make_tokens_look_dear() -> None:
    made = pacer()
    step(made, 1, 0.040)
    before = made.room(1)
    made.prefilled(2, 0.020)
    made.open_gap()
    assert made.room(1) == before


def test_chunks_grow_to_fill_the_gap_though_runs_have_a_fixed_cost() -> None:
    made = Pacer(4.0, 512)
    step(made, 1, 0.010)

    def run(tokens: int) -> None:
        made.prefilled(tokens, 0.010 + tokens * TOKEN_S)
        made.open_gap()

    run(MIN_CHUNK)
    for _ in range(40):
        run(made.room(1))
    assert 17 <= made.room(1) <= 20


def test_estimates_follow_a_change() -> None:
    made = pacer()
    step(made, 1, 0.010)
    before = made.room(1)
    for _ in range(20):
        step(made, 1, 0.100)
    assert made.room(1) > 4 * before
