"""What vLLM reports of itself, kept per engine so that several can live in one process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.base import Load
from engine.vllm import compat


@dataclass(slots=True)
class Rank:
    """What one EngineCore (one data-parallel rank) has reported.

    ``running``, ``waiting`` and ``kv_usage`` (a fraction) are as of its last step; the
    rest counts since start. Token counts are in tokens.
    """

    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0
    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    drafts: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0


class Counters:
    """Filled by vLLM's output handler on the event loop; read by ``load``."""

    def __init__(self) -> None:
        self.ranks: dict[int, Rank] = {0: Rank()}

    def expect(self, indexes: list[int]) -> None:
        self.ranks = {index: Rank() for index in indexes}

    def record(self, scheduler: Any, iteration: Any, index: int) -> None:
        """Take in one step's ``SchedulerStats`` and ``IterationStats``; either may be None."""
        rank = self.ranks.setdefault(index, Rank())
        if scheduler is not None:
            rank.running = scheduler.num_running_reqs
            rank.waiting = compat.waiting(scheduler)
            rank.kv_usage = scheduler.kv_cache_usage
            rank.prefix_queries += scheduler.prefix_cache_stats.queries
            rank.prefix_hits += scheduler.prefix_cache_stats.hits
            if (drafts := scheduler.spec_decoding_stats) is not None:
                rank.drafts += drafts.num_drafts
                rank.draft_tokens += drafts.num_draft_tokens
                rank.accepted_tokens += drafts.num_accepted_tokens
        if iteration is not None:
            rank.preemptions += iteration.num_preempted_reqs

    def total(self, name: str) -> int:
        return sum(int(getattr(rank, name)) for rank in self.ranks.values())


@dataclass(frozen=True, slots=True)
class Shape:
    """Fixed sizes of a loaded engine: KV blocks of ``block_size`` tokens on each rank."""

    block_size: int
    blocks: int
    max_num_seqs: int


def load(counters: Counters, shape: Shape, unfinished: int) -> Load:
    """The engine's load.

    Args:
        unfinished: sequences that this process has handed in and not seen the end of.
            vLLM reports only with a step, so that after an abort of everything its last
            report would stand forever; this number is always right.
    """
    ranks = len(counters.ranks)
    running = min(counters.total("running"), unfinished)
    tokens = shape.block_size * shape.blocks
    used = sum(round(rank.kv_usage * tokens) for rank in counters.ranks.values())
    return Load(
        waiting=unfinished - running,
        running=running,
        kv_used=used if unfinished else 0,
        kv_total=tokens * ranks,
        max_running=shape.max_num_seqs * ranks,
        preemptions=counters.total("preemptions"),
        prefix_queries=counters.total("prefix_queries"),
        prefix_hits=counters.total("prefix_hits"),
        drafts=counters.total("drafts"),
        draft_tokens=counters.total("draft_tokens"),
        accepted_tokens=counters.total("accepted_tokens"),
    )
