"""The vectorised sampler against a scalar reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_calls import sequence
from scalar_sampling import distance_to_choice, edited_logits, log_softmax, probabilities

from engine.onnx.draws import Draws
from engine.onnx.logprobs import token_logprobs
from engine.onnx.sampler import Sampler
from engine.onnx.sequence import Sequence

VOCAB = 300  # not a multiple of any block size in the sampler
ROUNDING = 1e-5

tokens = st.integers(0, VOCAB - 1)
options = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([0.0, 0.3, 1.0, 1.7]),
        "top_k": st.sampled_from([0, 0, 1, 5, 40, VOCAB + 5]),
        "top_p": st.sampled_from([1.0, 1.0, 0.9, 0.5, 0.05]),
        "min_p": st.sampled_from([0.0, 0.0, 0.02, 0.3]),
        "seed": st.integers(-5, 5),
    },
    optional={
        "presence_penalty": st.floats(-2, 2),
        "frequency_penalty": st.floats(-2, 2),
        "repetition_penalty": st.floats(0.5, 2),
        "logit_bias": st.dictionaries(tokens, st.floats(-100, 100), max_size=5),
        "bad_words": st.lists(st.lists(tokens, min_size=1, max_size=3).map(tuple), max_size=4).map(
            tuple
        ),
        "allowed_token_ids": st.lists(tokens, min_size=2, max_size=50).map(tuple),
        "min_tokens": st.integers(0, 6),
        "stop_token_ids": st.lists(tokens, max_size=1).map(tuple),
        "logprobs": st.integers(0, 20),
    },
)
rows = st.tuples(options, st.lists(tokens, min_size=1, max_size=8), st.lists(tokens, max_size=8))


def make(row: tuple[dict[str, Any], list[int], list[int]]) -> Sequence:
    chosen, prompt, output = row
    return sequence(prompt, output, max_tokens=50, **chosen)


@given(st.lists(rows, min_size=1, max_size=6), st.integers(0, 10**6), st.floats(0.1, 6))
def test_each_row_is_what_the_scalar_reference_allows(
    batch: list[Any], seed: int, spread: float
) -> None:
    made = [make(row) for row in batch]
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal((len(made), VOCAB)) * spread).astype(np.float32)
    choices = Sampler(made).choose(logits.copy())
    for row, member in enumerate(made):
        sampling, chosen = member.sampling, choices.tokens[row]
        output = member.tokens[member.prompt_len :]
        x = edited_logits(
            logits[row].tolist(),
            sampling,
            member.tokens[: member.prompt_len],
            output,
            member.output.stop_ids,
        )
        assert (row in choices.faults) == (max(x) == -math.inf)
        if row in choices.faults:
            continue
        if sampling.temperature == 0:
            assert x[chosen] >= max(x) - ROUNDING
        else:
            odds = probabilities(x, sampling)
            draw = Draws(sampling.seed, 0).at(len(output))
            assert distance_to_choice(chosen, draw, odds) < ROUNDING * 10
        if sampling.logprobs is not None:
            entry = choices.logprobs[row]
            assert entry is not None
            expected = log_softmax(logits[row])
            assert entry.logprob == pytest.approx(expected[chosen], abs=ROUNDING)
            ids = np.argsort(-logits[row], kind="stable")[: sampling.logprobs]
            assert [token for token, _ in entry.top] == ids.tolist()
            assert [v for _, v in entry.top] == pytest.approx(expected[ids], abs=ROUNDING)
        else:
            assert choices.logprobs[row] is None


@given(st.lists(rows, min_size=2, max_size=6), st.integers(0, 10**6))
def test_a_row_does_not_depend_on_its_mates(batch: list[Any], seed: int) -> None:
    logits = np.random.default_rng(seed).standard_normal((len(batch), VOCAB)).astype(np.float32)
    together = Sampler([make(row) for row in batch]).choose(logits.copy())
    for row, own in enumerate(batch):
        alone = Sampler([make(own)]).choose(logits[row : row + 1].copy())
        assert alone.tokens == [together.tokens[row]]
        assert alone.logprobs == [together.logprobs[row]]


@pytest.mark.parametrize(
    "chosen", [{}, {"top_k": 50}, {"top_p": 0.99}, {"min_p": 0.001}, {"temperature": 1.5}]
)
def test_draws_follow_the_distribution(chosen: dict[str, Any]) -> None:
    logits = np.random.default_rng(0).standard_normal(VOCAB).astype(np.float32) * 3
    drawn = sequence([1], seed=11, **({"temperature": 1.0} | chosen))
    odds = probabilities(logits.tolist(), drawn.sampling)
    sampler, count = Sampler([drawn]), 4000
    times = np.zeros(VOCAB)
    for _ in range(count):
        token = sampler.choose(logits[None].copy()).tokens[0]
        times[token] += 1
        drawn.tokens.append(token)
    expected = np.array([odds.get(i, 0.0) for i in range(VOCAB)]) * count
    assert (times[expected == 0] == 0).all()
    common = expected > 10
    deviation = np.abs(times - expected)[common] / np.sqrt(expected[common])
    assert deviation.max() < 5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("options_of_all", [{}, {"temperature": 1.0, "logprobs": 2}])
def test_broken_logits_fail_their_own_row_only(bad: float, options_of_all: dict[str, Any]) -> None:
    made = [sequence(**options_of_all) for _ in range(3)]
    logits = np.random.default_rng(1).standard_normal((3, VOCAB)).astype(np.float32)
    sound = Sampler([sequence(seed=1, **options_of_all) for _ in range(3)])
    logits[1, 7] = bad
    assert list(Sampler(made).choose(logits.copy()).faults) == [1]
    assert list(sound.choose(logits.copy()).faults) == [1]


def test_nothing_allowed_is_a_fault_of_that_row() -> None:
    stuck = sequence(allowed_token_ids=(5,), stop_token_ids=(5,), min_tokens=3)
    choices = Sampler([sequence(), stuck]).choose(np.ones((2, VOCAB), np.float32))
    assert list(choices.faults) == [1]


def test_a_penalty_that_overflows_is_a_fault_of_that_row() -> None:
    wild = sequence([3], temperature=1.0, repetition_penalty=1e-38)
    logits = np.full((2, VOCAB), 2.0, np.float32)
    assert list(Sampler([sequence(), wild]).choose(logits * 100).faults) == [1]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({"presence_penalty": 1.0}, [4.0, 2.0, 2.0]),
        ({"frequency_penalty": 1.0}, [4.0, 1.0, 2.0]),
        ({"repetition_penalty": 2.0}, [2.0, 1.5, 1.5]),
        ({"repetition_penalty": 2.0, "frequency_penalty": 0.5}, [2.0, 0.5, 1.0]),
    ],
)
def test_penalties_count_what_was_put_out(chosen: dict[str, float], expected: list[float]) -> None:
    """Token 0 is in the prompt, token 1 was put out twice, token 2 once."""
    penalised = sequence([0], [1, 2, 1], **chosen)
    logits = np.array([[4.0, 3.0, 3.0, -9.0]], np.float32)
    Sampler([penalised]).choose(logits)
    assert logits[0, :3].tolist() == pytest.approx(expected)


class OnlyEven:
    """Allows even tokens below 64, then anything."""

    fault: str | None = None
    ended = False

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def allowed_mask(self) -> np.ndarray:
        return np.array([0x55555555, 0x55555555], np.int64).astype(np.int32)

    def accept(self, token_id: int) -> None:
        self.accepted.append(token_id)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_constraint_masks_and_is_told(temperature: float) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        bound, free = sequence(temperature=temperature), sequence(temperature=temperature)
        bound.constraint = constraint = OnlyEven()
        logits = rng.standard_normal((2, VOCAB)).astype(np.float32)
        token = Sampler([bound, free]).choose(logits.copy()).tokens[0]
        assert token % 2 == 0
        assert token < 64
        bound.append(token)
        assert constraint.accepted == [token]


def test_draws_depend_on_seed_choice_and_position_only() -> None:
    forwards, backwards = Draws(3, 1), Draws(3, 1)
    positions = [0, 1, 63, 64, 200]
    ahead = [forwards.at(p) for p in positions]
    assert [backwards.at(p) for p in reversed(positions)] == ahead[::-1]
    assert len({*ahead, *(Draws(3, 2).at(p) for p in positions), Draws(4, 1).at(0)}) == 11
    assert all(0 <= draw < 1 for draw in ahead)
    assert Draws(-1, 0).at(0) == Draws(2**64 - 1, 0).at(0)


@pytest.mark.parametrize("flat", [True, False])
def test_logprobs_of_many_rows(flat: bool) -> None:
    rng = np.random.default_rng(5)
    logits = np.zeros((40, VOCAB), np.float32)
    if not flat:
        logits = (rng.standard_normal((40, VOCAB)) * 10).astype(np.float32)
    chosen = rng.integers(0, VOCAB, 40).tolist()
    for row, entry in enumerate(token_logprobs(logits, chosen, [20] * 40)):
        expected = log_softmax(logits[row])
        assert entry.token_id == chosen[row]
        assert entry.logprob == pytest.approx(expected[chosen[row]], abs=1e-4)
        ids = np.argsort(-logits[row], kind="stable")[:20]
        assert [token for token, _ in entry.top] == ids.tolist()
