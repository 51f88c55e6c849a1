"""The dashboard of one endpoint: what callers see, what the engines do, what it runs on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.vertex.alerts_promql import (
    CPU,
    DUTY_CYCLE,
    LATENCIES,
    REPLICAS,
    RESPONSES,
    TO,
    error_ratio,
    of_endpoint,
)
from deploy.vertex.dashboard_schema import (
    Axis,
    Dashboard,
    DataSet,
    MosaicLayout,
    Tile,
    TimeSeriesQuery,
    Widget,
    XyChart,
)
from deploy.vertex.spec import Spec

WIDTH, HEIGHT = 24, 16
_BY_VERSION = "sum by (deployed_model_id)"


def dashboard_of(spec: Spec) -> dict[str, Any]:
    """The ``Dashboard`` in JSON."""
    tiles = [
        Tile(
            xPos=WIDTH * (position % 2),
            yPos=HEIGHT * (position // 2),
            width=WIDTH,
            height=HEIGHT,
            widget=widget,
        )
        for position, widget in enumerate(widgets(spec))
    ]
    board = Dashboard(
        displayName=f"llm-gateway: {spec.name}",
        labels=spec.all_labels,
        mosaicLayout=MosaicLayout(tiles=tuple(tiles)),
    )
    return board.model_dump(exclude_none=True, mode="json")


def widgets(spec: Spec) -> Iterator[Widget]:
    """All charts, in their order from the top left."""
    responses = of_endpoint(RESPONSES, spec.endpoint_id)
    yield chart("Requests", "1/s", {
        "": f"sum by (deployed_model_id, response_code) (rate({responses}[5m]))"
    })  # fmt: skip
    yield chart("Failed requests (5xx)", "share", {"": error_ratio(spec.endpoint_id, "5m")})
    latencies = of_endpoint(f"{LATENCIES}_bucket", spec.endpoint_id, 'latency_type="total"')
    yield chart("Latency at the endpoint", "ms", {
        f"p{share:g}": f"histogram_quantile({share / 100}, sum by (deployed_model_id, le) "
        f"(rate({latencies}[5m])))"
        for share in (50, 95)
    })  # fmt: skip
    yield chart("Time to first token", "s", {
        f"p{share:g}": quantile(spec, "time_to_first_token_seconds", share / 100)
        for share in (50, 95)
    })  # fmt: skip
    yield chart("Between tokens", "s", {
        "p95": quantile(spec, "inter_token_latency_seconds", 0.95)
    })  # fmt: skip
    yield chart("Requests in the engines", "requests", {
        name: f"{_BY_VERSION} ({of_engines(spec, f'num_requests_{name}')})"
        for name in ("running", "waiting")
    })  # fmt: skip
    yield chart("KV cache in use", "share", {
        "": f"max by (deployed_model_id) ({of_engines(spec, 'kv_cache_usage_perc')})"
    })  # fmt: skip
    yield chart("Tokens", "1/s", {
        name: f"{_BY_VERSION} (rate({of_engines(spec, f'{name}_tokens_total')}[5m]))"
        for name in ("prompt", "generation")
    })  # fmt: skip
    yield chart("Replicas", "replicas", {
        "": f"{_BY_VERSION} ({of_endpoint(REPLICAS, spec.endpoint_id)})"
    })  # fmt: skip
    yield chart("Machines", "share", {
        "GPU": f"avg by (deployed_model_id) ({of_endpoint(DUTY_CYCLE, spec.endpoint_id)})",
        "CPU": f"avg by (deployed_model_id) ({of_endpoint(CPU, spec.endpoint_id)})",
    })  # fmt: skip


def chart(title: str, unit: str, queries: dict[str, str]) -> Widget:
    """A chart of PromQL queries; the keys are put before their labels in the legend."""
    sets = tuple(
        DataSet(timeSeriesQuery=TimeSeriesQuery(prometheusQuery=query), legendTemplate=name or None)
        for name, query in queries.items()
    )
    return Widget(title=title, xyChart=XyChart(dataSets=sets, yAxis=Axis(label=unit)))


def of_engines(spec: Spec, name: str) -> str:
    """A selector of what AutoMetrics exports of ``vllm:NAME``."""
    return f'{TO}{name}{{endpoint_id="{spec.endpoint_id}"}}'


def quantile(spec: Spec, name: str, share: float) -> str:
    """A quantile of one of the engines' histograms, per version."""
    buckets = of_engines(spec, f"{name}_bucket")
    return f"histogram_quantile({share}, sum by (deployed_model_id, le) (rate({buckets}[5m])))"
