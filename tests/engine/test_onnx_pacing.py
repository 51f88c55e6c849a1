"""Chunks follow from what steps cost."""

from __future__ import annotations

import pytest

from engine.onnx.pacing import MIN_CHUNK, Pacer

TOKEN_S = 0.001


def pacer(itl_ratio: float = 4.0, max_chunk: int = 512) -> Pacer:
    made = Pacer(itl_ratio, max_chunk)
    made.prefilled(100, 100 * TOKEN_S)
    return made


def test_before_anything_is_measured_chunks_are_small() -> None:
    assert Pacer(4.0, 512).chunk(0) == MIN_CHUNK
    assert pacer().chunk(3) == MIN_CHUNK


@pytest.mark.parametrize("ratio", [2.0, 4.0, 6.0])
def test_a_chunk_fills_the_gap_that_the_ratio_leaves(ratio: float) -> None:
    made = pacer(ratio)
    made.decoded(4, 0.040)
    chunk = made.chunk(4)
    gap = 0.040 + chunk * TOKEN_S
    assert gap <= 0.040 * ratio
    assert gap > 0.040 * ratio - MIN_CHUNK * TOKEN_S - 1e-9


def test_an_unknown_width_takes_the_nearest_known_one() -> None:
    made = pacer()
    made.decoded(1, 0.010)
    made.decoded(16, 0.100)
    assert made.chunk(2) == made.chunk(1)
    assert made.chunk(12) == made.chunk(16)


def test_without_decoding_chunks_are_big_and_bounded() -> None:
    assert pacer().chunk(0) > 200
    fast = Pacer(4.0, 512)
    fast.prefilled(100, 0.001)
    assert fast.chunk(0) == 512


def test_slow_models_still_advance() -> None:
    slow = Pacer(4.0, 512)
    slow.prefilled(1, 5.0)
    slow.decoded(1, 0.001)
    assert slow.chunk(0) == slow.chunk(1) == MIN_CHUNK


def test_estimates_follow_a_change() -> None:
    made = pacer()
    made.decoded(1, 0.010)
    before = made.chunk(1)
    for _ in range(20):
        made.decoded(1, 0.100)
    assert made.chunk(1) > 4 * before
