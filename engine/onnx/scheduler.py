"""Who waits, who prefills, who decodes, and who has to give way when KV runs out."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Protocol

from engine.onnx.prefix_cache import BLOCK
from engine.onnx.sequence import Sequence


class SlotMemory(Protocol):
    """The KV buffers as the scheduler sees them."""

    def copy(self, source: int, target: int, length: int) -> None:
        """Make ``target`` hold the first ``length`` tokens of ``source``."""

    def leave(self, slot: int) -> None:
        """Say that nobody needs what ``slot`` holds."""


class Scheduler:
    """Seats sequences in slots and keeps the decoding ones in slots ``0, 1, 2 ...``.

    One sequence prefills at a time, in a slot behind the decoding ones.

    Args:
        max_running: sequences that prefill or decode at one time.
        kv_tokens: tokens that running sequences may hold together.
        before_leaving: called while a sequence's KV is still there, for the last time.
    """

    def __init__(
        self,
        memory: SlotMemory,
        *,
        max_running: int,
        kv_tokens: int,
        before_leaving: Callable[[Sequence], None],
    ) -> None:
        self._memory = memory
        self._max_running = max_running
        self._total_blocks = kv_tokens // BLOCK
        self._free_blocks = self._total_blocks
        self._before_leaving = before_leaving
        self._waiting: list[Sequence] = []
        self.decoding: list[Sequence] = []
        """The sequence in slot i is at position i."""
        self.prefilling: Sequence | None = None
        self.preemptions = 0
        self.batch_version = 0
        """Changes whenever ``decoding`` does."""

    @property
    def waiting_count(self) -> int:
        return len(self._waiting)

    @property
    def running_count(self) -> int:
        return len(self.decoding) + (self.prefilling is not None)

    @property
    def used_tokens(self) -> int:
        """KV tokens held by running sequences, in whole blocks."""
        return (self._total_blocks - self._free_blocks) * BLOCK

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence behind those that run before it."""
        bisect.insort(self._waiting, sequence, key=lambda waiting: waiting.order)

    def next_to_prefill(self) -> Sequence | None:
        """The sequence whose prefill goes on, or a newly seated one, or None."""
        if self.prefilling is not None:
            return self.prefilling
        if not self._waiting or self.running_count >= self._max_running:
            return None
        needed = blocks_for(len(self._waiting[0].tokens))
        # Every decoding sequence may want a block soon; without this margin a newcomer
        # would be let in only to be preempted at once.
        if self._free_blocks < needed + len(self.decoding):
            return None
        sequence = self._waiting.pop(0)
        self._reserve(sequence, needed)
        sequence.slot = len(self.decoding)
        self.prefilling = sequence
        return sequence

    def start_decoding(self, sequence: Sequence) -> None:
        """Move the sequence whose prefill has ended to the decoding ones."""
        self.prefilling = None
        self._join(sequence, source=sequence.slot)

    def fork(self, parent: Sequence, child: Sequence) -> bool:
        """Seat a waiting sequence with a copy of its parent's KV, if there is room."""
        if self.running_count >= self._max_running or child not in self._waiting:
            return False
        if self._free_blocks < parent.blocks + len(self.decoding):
            return False
        self._waiting.remove(child)
        self._reserve(child, parent.blocks)
        child.kv_len = parent.kv_len
        self._join(child, source=parent.slot)
        return True

    def make_room_to_decode(self) -> None:
        """Give every decoding sequence room for one token more, preempting where needed.

        The one that would run last gives way, keeps its tokens and is computed again later.
        """
        while (needed := self._blocks_to_grow()) > self._free_blocks:
            running = [*self.decoding, *([self.prefilling] if self.prefilling else [])]
            self._preempt(max(running, key=lambda sequence: sequence.order))
        if needed:
            for sequence in self.decoding:
                self._reserve(sequence, blocks_for(sequence.kv_len + 1) - sequence.blocks)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence in whatever phase it is."""
        if sequence.slot < 0:
            self._waiting.remove(sequence)
        else:
            self._unseat(sequence)

    def _preempt(self, sequence: Sequence) -> None:
        self._unseat(sequence)
        self.add(sequence)
        self.preemptions += 1

    def _unseat(self, sequence: Sequence) -> None:
        self._before_leaving(sequence)
        slot = sequence.slot
        if sequence is self.prefilling:
            self.prefilling = None
        else:
            last = self.decoding.pop()
            if last is not sequence:
                self._memory.copy(last.slot, slot, last.kv_len)
                self._memory.leave(last.slot)
                self.decoding[slot] = last
                last.slot = slot
            self.batch_version += 1
        if slot >= len(self.decoding):
            self._memory.leave(slot)
        self._free_blocks += sequence.blocks
        sequence.blocks = sequence.kv_len = 0
        sequence.slot = -1

    def _join(self, sequence: Sequence, *, source: int) -> None:
        slot = len(self.decoding)
        if slot != source:
            self._memory.copy(source, slot, sequence.kv_len)
            if sequence.slot == source:
                self._memory.leave(source)
        sequence.slot = slot
        self.decoding.append(sequence)
        self.batch_version += 1

    def _blocks_to_grow(self) -> int:
        return sum(s.kv_len >= s.blocks * BLOCK for s in self.decoding)

    def _reserve(self, sequence: Sequence, blocks: int) -> None:
        sequence.blocks += blocks
        self._free_blocks -= blocks


def blocks_for(tokens: int) -> int:
    """Blocks that hold ``tokens`` tokens."""
    return -(-tokens // BLOCK)
