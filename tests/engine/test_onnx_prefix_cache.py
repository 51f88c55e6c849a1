"""The prefix cache gives back exactly the KV that belongs to a prefix, or nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.onnx.kv_slots import KvSlots
from engine.onnx.prefix_cache import BLOCK, PrefixCache, extend_keys

LAYERS, HEADS, HEAD_DIM, MAX_LEN = 2, 2, 4, 8 * BLOCK


def make_slots() -> KvSlots:
    return KvSlots(
        layers=LAYERS,
        slots=2,
        heads=HEADS,
        max_len=MAX_LEN,
        head_dim=HEAD_DIM,
        resident_tokens=10**6,
    )


def keys_of(tokens: list[int], salt: str | None = None) -> list[bytes]:
    keys: list[bytes] = []
    extend_keys(keys, salt, tokens, len(tokens) // BLOCK)
    return keys


def compute(slots: KvSlots, slot: int, tokens: list[int]) -> None:
    """Fill a slot with values that depend on the whole prefix, as attention makes them."""
    running = np.cumsum(np.array(tokens, np.float32) * np.arange(1, len(tokens) + 1))
    for number, buffer in enumerate(slots.buffers):
        for head in range(HEADS):
            buffer[slot, head, : len(tokens)] = (running + number * 7 + head)[:, None]


def holds(slots: KvSlots, slot: int, tokens: list[int]) -> bool:
    expected = make_slots()
    compute(expected, 0, tokens)
    return all(
        np.array_equal(got[slot, :, : len(tokens)], wanted[0, :, : len(tokens)])
        for got, wanted in zip(slots.buffers, expected.buffers, strict=True)
    )


def words(*blocks: int) -> list[int]:
    """One block per number, each filled with it."""
    return [number for number in blocks for _ in range(BLOCK)]


sequences = st.lists(st.integers(0, 2), min_size=0, max_size=8)


@given(st.lists(sequences, max_size=25), st.integers(1, 12))
def test_what_is_loaded_is_what_was_computed(asked: list[list[int]], capacity: int) -> None:
    slots = make_slots()
    cache = PrefixCache(slots, capacity * BLOCK)
    for blocks in asked:
        tokens = words(*blocks)
        keys = keys_of(tokens)
        length = cache.load(keys, 1)
        assert length <= len(tokens)
        assert holds(slots, 1, tokens[:length])
        compute(slots, 0, tokens)
        cache.publish(keys, 0)
        assert len(cache) <= capacity
        assert cache.load(keys, 1) == min(len(blocks), capacity) * BLOCK


def test_only_the_shared_blocks_are_found() -> None:
    slots = make_slots()
    cache = PrefixCache(slots, 100 * BLOCK)
    compute(slots, 0, words(1, 2, 3))
    cache.publish(keys_of(words(1, 2, 3)), 0)
    assert cache.load(keys_of(words(1, 2, 9, 3)), 1) == 2 * BLOCK
    assert cache.load(keys_of(words(2, 3)), 1) == 0
    assert (cache.queries, cache.hits) == (6 * BLOCK, 2 * BLOCK)


def test_salts_share_nothing() -> None:
    tokens = words(1, 2)
    keyed = [keys_of(tokens, salt) for salt in (None, "", "a", "b", "-")]
    assert len({key for keys in keyed for key in keys}) == 10
    slots = make_slots()
    cache = PrefixCache(slots, 100 * BLOCK)
    cache.publish(keys_of(tokens, "a"), 0)
    assert cache.load(keys_of(tokens, "b"), 1) == 0
    assert cache.load(keys_of(tokens, "a"), 1) == 2 * BLOCK


def test_the_least_recently_used_prefix_goes_from_its_end() -> None:
    slots = make_slots()
    cache = PrefixCache(slots, 4 * BLOCK)
    cache.publish(keys_of(words(1, 1)), 0)
    cache.publish(keys_of(words(2, 2)), 0)
    assert cache.load(keys_of(words(1, 1)), 1) == 2 * BLOCK
    cache.publish(keys_of(words(3)), 0)
    assert cache.load(keys_of(words(2, 2)), 1) == BLOCK
    assert cache.load(keys_of(words(1, 1)), 1) == 2 * BLOCK


def test_a_prefix_longer_than_the_cache_is_kept_in_part() -> None:
    slots = make_slots()
    cache = PrefixCache(slots, 3 * BLOCK)
    tokens = words(1, 2, 3, 4, 5)
    compute(slots, 0, tokens)
    cache.publish(keys_of(tokens), 0)
    assert cache.load(keys_of(tokens), 1) == 3 * BLOCK
    assert holds(slots, 1, tokens[: 3 * BLOCK])


@pytest.mark.parametrize("tokens", [0, BLOCK - 1])
def test_a_cache_without_room_is_off(tokens: int) -> None:
    cache = PrefixCache(make_slots(), tokens)
    assert not cache.enabled
    cache.publish(keys_of(words(1)), 0)
    assert cache.load(keys_of(words(1)), 1) == 0


def test_keys_grow_without_changing() -> None:
    tokens = list(range(5 * BLOCK))
    keys: list[bytes] = []
    extend_keys(keys, "s", tokens, 2)
    first = keys.copy()
    extend_keys(keys, "s", tokens, 5)
    assert keys[:2] == first
    assert keys == keys_of(tokens, "s")
    extend_keys(keys, "s", tokens, 3)
    assert len(keys) == 5


def test_left_slots_give_memory_back_beyond_the_bound() -> None:
    slots = KvSlots(layers=1, slots=3, heads=1, max_len=1024, head_dim=16, resident_tokens=100)
    for slot in range(3):
        slots.buffers[0][slot] = 1
        slots.written[slot] = 60
    slots.leave(1)
    assert not slots.buffers[0][1].any()
    assert slots.buffers[0][0].all()
    assert slots.buffers[0][2].all()
    slots.written[1] = 0
    slots.written[0] = 10
    slots.leave(0)
    assert slots.buffers[0][0].all()
