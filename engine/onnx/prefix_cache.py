"""KV of finished and running prefixes, reused for the longest shared token prefix."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from engine.onnx.kv_slots import KvSlots

BLOCK = 16
"""Tokens per block."""


def root_key(salt: str | None) -> bytes:
    """Key before the first block; differs for every salt and for no salt."""
    tag = b"-" if salt is None else b"+" + salt.encode()
    return hashlib.blake2b(tag, digest_size=16).digest()


def extend_keys(keys: list[bytes], salt: str | None, tokens: Sequence[int], blocks: int) -> None:
    """Bring ``keys`` to ``blocks`` entries: one per leading full block of ``tokens``.

    A key hashes the key before it and the block's tokens, so that it stands for the whole
    prefix. Collisions would hand one tenant's KV to another, hence a cryptographic hash.
    """
    parent = keys[-1] if keys else root_key(salt)
    start = len(keys)
    flat = np.asarray(tokens[start * BLOCK : blocks * BLOCK], np.int64).tobytes()
    size = BLOCK * 8
    for offset in range(0, len(flat), size):
        parent = hashlib.blake2b(parent + flat[offset : offset + size], digest_size=16).digest()
        keys.append(parent)


class PrefixCache:
    """A bounded pool of KV blocks under LRU. Copies in and out of slots; pins nothing.

    Args:
        slots: the KV buffers that blocks are copied from and to.
        tokens: memory of the pool, in tokens; 0 turns the cache off.
    """

    def __init__(self, slots: KvSlots, tokens: int) -> None:
        self._slots = slots
        self._capacity = tokens // BLOCK
        self._free = list(reversed(range(self._capacity)))
        self._block_of: OrderedDict[bytes, int] = OrderedDict()  # least recently used first
        _, heads, _, head_dim = slots.buffers[0].shape
        # A block lies in one piece, so that new blocks touch new memory a little at a time:
        # with a pool per layer, huge pages made one block's first use a stall of 0.3 s.
        shape = (self._capacity, len(slots.buffers), heads, BLOCK, head_dim)
        self._pool = np.zeros(shape, np.float32)
        self.queries = 0
        """Prompt tokens looked up since start."""
        self.hits = 0
        """Of these, tokens that were found."""

    def __len__(self) -> int:
        return len(self._block_of)

    @property
    def enabled(self) -> bool:
        return self._capacity > 0

    def load(self, keys: Sequence[bytes], slot: int) -> int:
        """Copy the longest cached prefix of ``keys`` into ``slot``; returns its tokens."""
        found = []
        for key in keys:
            block = self._block_of.get(key)
            if block is None:
                break
            found.append(block)
        self.queries += len(keys) * BLOCK
        self.hits += len(found) * BLOCK
        if not found:
            return 0
        self._touch(keys[: len(found)])
        length = len(found) * BLOCK
        for number, buffer in enumerate(self._slots.buffers):
            blocks = self._pool[found, number]
            heads, head_dim = blocks.shape[1], blocks.shape[3]
            target = buffer[slot, :, :length].reshape(heads, len(found), BLOCK, head_dim)
            target[...] = blocks.transpose(1, 0, 2, 3)
        return length

    def publish(self, keys: Sequence[bytes], slot: int) -> None:
        """Keep the leading ``len(keys)`` blocks of ``slot``, as far as there is room."""
        keys = keys[: self._capacity]
        self._touch([key for key in keys if key in self._block_of])
        missing = [i for i, key in enumerate(keys) if key not in self._block_of]
        if not missing:
            return
        targets = [self._take_block() for _ in missing]
        for number, buffer in enumerate(self._slots.buffers):
            heads, head_dim = buffer.shape[1], buffer.shape[3]
            source = buffer[slot, :, : len(keys) * BLOCK].reshape(heads, -1, BLOCK, head_dim)
            self._pool[targets, number] = source[:, missing].transpose(1, 0, 2, 3)
        for i, block in zip(missing, targets, strict=True):
            self._block_of[keys[i]] = block
        self._touch(keys)

    def _take_block(self) -> int:
        if self._free:
            return self._free.pop()
        return self._block_of.popitem(last=False)[1]

    def _touch(self, keys: Sequence[bytes]) -> None:
        """Make ``keys`` the most recent, the root last: a child is useless without it."""
        for key in reversed(keys):
            self._block_of.move_to_end(key)
