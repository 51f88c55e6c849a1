"""Prefill chunks end where attention leaves every bit as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_llama import Shape, random_weights, write_prepared

from engine.onnx.chunks import attention_rows, chunk_length
from engine.onnx.prepared import PreparedModel
from engine.onnx.session import ModelSession

PAST = 100
LONGEST = 200


@given(left=st.integers(1, 2000), most=st.integers(1, 600), rows=st.sampled_from([16, 85, 128]))
def test_a_prompt_is_cut_without_a_lone_token(left: int, most: int, rows: int) -> None:
    total, chunks = left, []
    while left:
        chunks.append(chunk_length(left, most, rows))
        left -= chunks[-1]
    assert sum(chunks) == total
    assert all(1 <= chunk <= max(most, 3) for chunk in chunks)
    if total > 1:
        assert all(chunk % rows != 1 for chunk in chunks)
    # No cut but the last two costs more than the few tokens that the rule takes off.
    assert all(chunk >= min(most, 2) and chunk >= most - 2 for chunk in chunks[:-2])


@pytest.fixture(scope="module", params=[16, 48])
def session(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ModelSession:
    shape = Shape(head_dim=request.param)
    folder: Path = tmp_path_factory.mktemp("heads")
    model = PreparedModel.read(write_prepared(folder, shape, random_weights(shape)))
    return ModelSession(
        model, slots=2, max_len=512, resident_tokens=1024, max_chunk=512, threads=1, spin_us=0
    )


def test_chunks_that_may_be_chosen_give_the_same_bits(session: ModelSession) -> None:
    """Keys of the second layer are made from what attention of the first one gave."""
    ids = np.random.default_rng(0).integers(0, session.vocab_size, PAST + LONGEST + 2).tolist()
    session.prefill(0, 0, ids, 1)
    session.prefill(1, 0, ids[:PAST], 1)
    keys, _ = session.kv.layer(1)
    differing = set()
    for count in range(2, LONGEST):
        session.prefill(1, PAST, ids[PAST : PAST + count], 1)
        if not np.array_equal(keys[0, :, : PAST + count], keys[1, :, : PAST + count]):
            differing.add(count)
    chosen = {chunk_length(LONGEST * 2, most, session.attention_rows) for most in range(2, LONGEST)}
    assert differing.isdisjoint(chosen)
    assert len(chosen) >= LONGEST - 2 - LONGEST // session.attention_rows


def test_attention_rows_follow_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def with_l2(size: int) -> int:
        monkeypatch.setattr("os.sysconf", lambda name: size)
        return attention_rows(128)

    # Measured with onnxruntime 1.31 told of caches of these sizes.
    assert [with_l2(size) for size in (256 << 10, 512 << 10, 1 << 20)] == [64, 128, 256]
    assert with_l2(0) == 256
