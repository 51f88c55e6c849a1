"""Prometheus metrics: vLLM's names for what scalers and routers read, ``gateway_*`` for the rest.

Gauges of the engines are read when scraped; nothing polls them. Everything else is counted on
the event loop in plain attributes and turned into samples when scraped.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from engine.base import Load, ModelInfo
from gateway import __version__
from gateway.control.auth import ANONYMOUS
from gateway.http.exchange import Outcome
from gateway.telemetry.answers import Answers
from gateway.telemetry.histogram import LATENCY_BUCKETS, Histogram
from gateway.telemetry.model_metrics import ModelMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Engines report KV in tokens; vLLM's cache_config_info and its readers think in blocks.
KV_BLOCK_TOKENS = 16
LABELS = ["model_name", "engine"]


@dataclass(frozen=True, slots=True)
class EngineSample:
    """One engine at the moment of a scrape.

    Attributes:
        index: of the replica; the ``engine`` label, as in vLLM.
        kind, reason: which engine it is and why it was chosen.
        info: None until it has loaded for the first time.
    """

    model: str
    index: int
    kind: str
    reason: str
    up: bool
    restarts: int
    info: ModelInfo | None
    load: Load

    @property
    def labels(self) -> list[str]:
        """Values of LABELS."""
        return [self.model, str(self.index)]


class Metrics(Collector):
    """All counters of one gateway. Owned by the event loop that serves requests."""

    def __init__(self, engines: Callable[[], Iterable[EngineSample]]) -> None:
        self._engines = engines
        self.in_flight = 0
        self.requests: Counter[tuple[str, Outcome]] = Counter()
        self.degraded: Counter[str] = Counter()
        self.carried_on: Counter[str] = Counter()
        self.responses_not_stored = 0
        self.models: defaultdict[str, ModelMetrics] = defaultdict(ModelMetrics)
        self.logs_dropped: Callable[[], int] = lambda: 0
        self.sources: list[Callable[[], Iterable[Metric]]] = []
        self.duration = Histogram(LATENCY_BUCKETS)
        self.answers = Answers(ANONYMOUS.id)
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def note_carry_on(self, model: str) -> None:
        """Count a request that another target has taken over."""
        self.carried_on[model] += 1

    def render(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """Samples at this moment; called by the registry."""
        engines = list(self._engines())
        yield from self._gateway()
        yield from engine_states(engines)
        yield from engine_loads([engine for engine in engines if engine.info is not None])
        yield from self._models()
        for source in self.sources:
            yield from source()

    def _gateway(self) -> Iterator[Metric]:
        yield gauge(
            "gateway_build_info", "Version of the gateway.", ["version"], {(__version__,): 1}
        )
        yield GaugeMetricFamily(
            "gateway_requests_in_flight", "Generation requests being worked on.", self.in_flight
        )
        yield counter(
            "gateway_requests",
            "Requests by how they ended; each is counted once.",
            ["route", "outcome"],
            {(route, outcome): count for (route, outcome), count in self.requests.items()},
        )
        yield from self.answers.collect()
        yield counter(
            "gateway_degraded_requests",
            "Requests answered by the fallback in place of this model.",
            ["model_name"],
            {(name,): self.degraded[name] for name in {**self.models, **self.degraded}},
        )
        yield counter(
            "gateway_carried_on_requests",
            "Requests whose engine died and that another engine finished.",
            ["model_name"],
            {(name,): self.carried_on[name] for name in {**self.models, **self.carried_on}},
        )
        yield histogram(
            "gateway_request_duration_seconds",
            "From the request's arrival to the last byte of the answer.",
            [],
            {(): self.duration},
        )
        yield CounterMetricFamily(
            "gateway_responses_not_stored",
            "Responses that could not be stored, or were too large to be.",
            self.responses_not_stored,
        )
        yield CounterMetricFamily(
            "gateway_log_records_dropped", "Log lines lost to a slow sink.", self.logs_dropped()
        )

    def _models(self) -> Iterator[Metric]:
        models = {(name, "0"): of for name, of in self.models.items()}
        for name, text, attribute in (
            ("vllm:prompt_tokens", "Prompt tokens of answered requests.", "prompt_tokens"),
            ("vllm:prompt_tokens_cached", "Those taken from the cache.", "cached_tokens"),
            ("vllm:generation_tokens", "Generated tokens.", "generation_tokens"),
        ):
            yield counter(name, text, LABELS, {k: getattr(m, attribute) for k, m in models.items()})
        yield counter(
            "vllm:request_success",
            "Finished choices by reason.",
            [*LABELS, "finished_reason"],
            {
                (*key, reason): count
                for key, m in models.items()
                for reason, count in m.finished.items()
            },
        )
        for name, text, attribute in (
            ("vllm:time_to_first_token_seconds", "Arrival to first token.", "first_token"),
            ("vllm:inter_token_latency_seconds", "Gaps between tokens.", "gap"),
            ("vllm:e2e_request_latency_seconds", "Arrival to last token.", "end_to_end"),
            ("vllm:request_queue_time_seconds", "Time in the engine's queue.", "queue"),
        ):
            yield histogram(
                name, text, LABELS, {k: getattr(m, attribute) for k, m in models.items()}
            )


def engine_states(engines: list[EngineSample]) -> Iterator[Metric]:
    """What is running, and why."""
    yield gauge(
        "gateway_engine_info",
        "Which engine serves a model and why it was chosen.",
        [*LABELS, "kind", "reason"],
        {(*e.labels, e.kind, e.reason): 1 for e in engines},
    )
    yield gauge(
        "gateway_engine_up",
        "1 while the engine takes requests.",
        LABELS,
        {tuple(e.labels): float(e.up) for e in engines},
    )
    yield counter(
        "gateway_engine_restarts",
        "Attempts to start the engine again.",
        LABELS,
        {tuple(e.labels): e.restarts for e in engines},
    )


def engine_loads(engines: list[EngineSample]) -> Iterator[Metric]:
    """vLLM's names for what an engine holds."""

    def used(e: EngineSample) -> float:
        return e.load.kv_used / e.load.kv_total if e.load.kv_total else 0.0

    gauges: dict[str, tuple[str, Callable[[EngineSample], float]]] = {
        "vllm:num_requests_running": ("Requests being generated.", lambda e: e.load.running),
        "vllm:num_requests_waiting": ("Requests in the queue.", lambda e: e.load.waiting),
        "vllm:kv_cache_usage_perc": ("KV cache in use; 1 is full.", used),
        "vllm:gpu_cache_usage_perc": ("Older name of vllm:kv_cache_usage_perc.", used),
    }
    for name, (text, value) in gauges.items():
        yield gauge(name, text, LABELS, {tuple(e.labels): value(e) for e in engines})
    yield gauge(
        "vllm:cache_config_info",
        "Size of the KV cache.",
        [*LABELS, "block_size", "num_gpu_blocks", "cache_dtype", "max_num_seqs"],
        {
            (
                *e.labels,
                str(KV_BLOCK_TOKENS),
                str(e.load.kv_total // KV_BLOCK_TOKENS),
                e.info.dtype if e.info else "",
                str(e.load.max_running),
            ): 1
            for e in engines
        },
    )
    counters: dict[str, tuple[str, Callable[[EngineSample], float]]] = {
        "vllm:num_preemptions": ("Requests put back to wait.", lambda e: e.load.preemptions),
        "vllm:prefix_cache_queries": (
            "Tokens looked up in the cache.",
            lambda e: e.load.prefix_queries,
        ),
        "vllm:prefix_cache_hits": ("Tokens found in the cache.", lambda e: e.load.prefix_hits),
        "vllm:spec_decode_num_drafts": ("Speculative drafts.", lambda e: e.load.drafts),
        "vllm:spec_decode_num_draft_tokens": ("Tokens drafted.", lambda e: e.load.draft_tokens),
        "vllm:spec_decode_num_accepted_tokens": (
            "Drafted tokens accepted.",
            lambda e: e.load.accepted_tokens,
        ),
    }
    for name, (text, value) in counters.items():
        yield counter(name, text, LABELS, {tuple(e.labels): value(e) for e in engines})


def gauge(
    name: str, text: str, labels: list[str], values: dict[tuple[str, ...], float]
) -> GaugeMetricFamily:
    """The samples of one gauge, by label values."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family


def counter(
    name: str, text: str, labels: list[str], values: dict[tuple[str, ...], float]
) -> CounterMetricFamily:
    """The samples of one counter, by label values."""
    family = CounterMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value)
    return family


def histogram(
    name: str, text: str, labels: list[str], values: dict[tuple[str, ...], Histogram]
) -> HistogramMetricFamily:
    """The samples of one histogram, by label values."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, value in values.items():
        family.add_metric(list(key), value.cumulative(), value.total)
    return family
