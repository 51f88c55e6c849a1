"""KV memory of running sequences: one buffer per layer and kind, one row per slot."""

from __future__ import annotations

import mmap

import numpy as np
import numpy.typing as npt

# Without MAP_NORESERVE (Linux's value; Python names it from 3.13 on) the system may refuse
# long contexts for want of memory that is never touched.
_MAP_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000

Buffer = npt.NDArray[np.float32]


class KvSlots:
    """Buffers [slots, heads, max_len, head_dim] whose pages exist once written.

    Address space costs nothing, so every slot is as long as the model allows. Memory does:
    once more than ``resident_tokens`` were written, slots that are left give theirs back.
    """

    def __init__(
        self,
        *,
        layers: int,
        slots: int,
        heads: int,
        max_len: int,
        head_dim: int,
        resident_tokens: int,
    ) -> None:
        self.max_len = max_len
        self.written = np.zeros(slots, np.int64)
        """Tokens of each slot that have memory behind them."""
        self._resident_tokens = resident_tokens
        self._row_bytes = heads * max_len * head_dim * np.dtype(np.float32).itemsize
        self._maps: list[mmap.mmap] = []
        self.buffers: list[Buffer] = []
        """Layer 0 keys, layer 0 values, layer 1 keys and so on."""
        for _ in range(2 * layers):
            memory = mmap.mmap(-1, slots * self._row_bytes, flags=_MAP_FLAGS)
            self._maps.append(memory)
            shape = (slots, heads, max_len, head_dim)
            self.buffers.append(np.frombuffer(memory, np.float32).reshape(shape))

    def layer(self, index: int) -> tuple[Buffer, Buffer]:
        """Keys and values of one layer."""
        return self.buffers[2 * index], self.buffers[2 * index + 1]

    def copy(self, source: int, target: int, length: int) -> None:
        """Make ``target`` hold the first ``length`` tokens of ``source``."""
        self.leave(target)
        for buffer in self.buffers:
            buffer[target, :, :length] = buffer[source, :, :length]
        self.written[target] = max(self.written[target], length)

    def leave(self, slot: int) -> None:
        """Say that nobody needs what ``slot`` holds."""
        if self.written.sum() <= self._resident_tokens:
            return
        page = mmap.PAGESIZE
        start = -(-slot * self._row_bytes // page) * page
        end = (slot + 1) * self._row_bytes // page * page
        if end > start:
            for memory in self._maps:
                memory.madvise(mmap.MADV_DONTNEED, start, end - start)
        self.written[slot] = 0
