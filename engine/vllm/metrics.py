"""What vLLM reports of itself, kept per engine so that several can live in one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.base import Load


@dataclass(frozen=True, slots=True)
class Sample:
    """One value in Prometheus terms; counters are named without their ``_total``."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: Mapping[str, str]
    value: float


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
    prompt_tokens: int = 0
    generation_tokens: int = 0
    drafts: int = 0
    draft_tokens: int = 0
    accepted_tokens: int = 0
    finished: Counter[str] = field(default_factory=Counter)


class Counters:
    """Filled by vLLM's output handler on the event loop; read by ``load`` and ``/metrics``."""

    def __init__(self) -> None:
        self.ranks: dict[int, Rank] = {0: Rank()}

    def expect(self, indexes: list[int]) -> None:
        self.ranks = {index: Rank() for index in indexes}

    def record(self, scheduler: Any, iteration: Any, index: int) -> None:
        """Take in one step's ``SchedulerStats`` and ``IterationStats``; either may be None."""
        rank = self.ranks.setdefault(index, Rank())
        if scheduler is not None:
            rank.running = scheduler.num_running_reqs
            # Requests that wait for a grammar or for remote KV came as an own number in 0.28.
            skipped = getattr(scheduler, "num_skipped_waiting_reqs", 0)
            rank.waiting = scheduler.num_waiting_reqs + skipped
            rank.kv_usage = scheduler.kv_cache_usage
            rank.prefix_queries += scheduler.prefix_cache_stats.queries
            rank.prefix_hits += scheduler.prefix_cache_stats.hits
            if (drafts := scheduler.spec_decoding_stats) is not None:
                rank.drafts += drafts.num_drafts
                rank.draft_tokens += drafts.num_draft_tokens
                rank.accepted_tokens += drafts.num_accepted_tokens
        if iteration is not None:
            rank.preemptions += iteration.num_preempted_reqs
            rank.prompt_tokens += iteration.num_prompt_tokens
            rank.generation_tokens += iteration.num_generation_tokens
            for request in iteration.finished_requests:
                rank.finished[str(request.finish_reason)] += 1

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
    )


_COUNTERS = {
    "num_preemptions": ("preemptions", "Requests preempted for want of KV memory."),
    "prefix_cache_queries": ("prefix_queries", "Prompt tokens looked up in the prefix cache."),
    "prefix_cache_hits": ("prefix_hits", "Prompt tokens found in the prefix cache."),
    "prompt_tokens": ("prompt_tokens", "Prompt tokens processed."),
    "generation_tokens": ("generation_tokens", "Tokens generated."),
    "spec_decode_num_drafts": ("drafts", "Speculative drafts."),
    "spec_decode_num_draft_tokens": ("draft_tokens", "Tokens drafted."),
    "spec_decode_num_accepted_tokens": ("accepted_tokens", "Drafted tokens accepted."),
}


def samples(counters: Counters, shape: Shape, unfinished: int, model: str) -> Iterator[Sample]:
    """The metrics of one engine under vLLM's own names, labelled with model and rank.

    A rank's gauges are its last report, except that an engine with nothing unfinished
    reports zeros.
    """
    busy = bool(unfinished)
    one = len(counters.ranks) == 1
    total = load(counters, shape, unfinished)
    for index, rank in counters.ranks.items():
        labels = {"model_name": model, "engine": str(index)}
        usage = rank.kv_usage if busy else 0.0
        gauges = {
            "num_requests_running": (
                total.running if one else rank.running * busy,
                "Sequences being generated.",
            ),
            "num_requests_waiting": (
                total.waiting if one else rank.waiting * busy,
                "Sequences waiting to be generated.",
            ),
            "kv_cache_usage_perc": (usage, "Share of the KV cache in use, 1 is full."),
            "gpu_cache_usage_perc": (usage, "The older name of kv_cache_usage_perc."),
        }
        for name, (value, text) in gauges.items():
            yield Sample(f"vllm:{name}", "gauge", text, labels, float(value))
        for name, (attribute, text) in _COUNTERS.items():
            yield Sample(f"vllm:{name}", "counter", text, labels, float(getattr(rank, attribute)))
        for reason, count in sorted(rank.finished.items()):
            yield Sample(
                "vllm:request_success",
                "counter",
                "Requests that ended, by reason.",
                {**labels, "finished_reason": reason},
                float(count),
            )
        sizes = {"block_size": str(shape.block_size), "num_gpu_blocks": str(shape.blocks)}
        yield Sample(
            "vllm:cache_config_info",
            "gauge",
            "Sizes of the KV cache.",
            {**labels, **sizes},
            1.0,
        )
