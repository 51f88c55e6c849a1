"""What is seen of accounting in the metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.control.ledger.ledger import Ledger
from gateway.control.response_cache.cache import AnswerCache


def ledger_metrics(ledger: Ledger) -> Iterator[Metric]:
    """Of the ledger; nothing while it is off."""
    journal, shipper = ledger.journal, ledger.shipper
    if journal is None or shipper is None:
        return
    yield CounterMetricFamily(
        "gateway_usage_records", "Requests entered into the ledger.", ledger.recorded
    )
    usd = CounterMetricFamily(
        "gateway_usage_usd", "US dollars that they cost, by model.", labels=["model_name"]
    )
    for model, amount in ledger.usd.items():
        usd.add_metric([model], amount)
    yield usd
    lost = CounterMetricFamily(
        "gateway_usage_records_lost", "Records given up, by the reason.", labels=["reason"]
    )
    lost.add_metric(["disk"], ledger.dropped)
    lost.add_metric(["journal_full"], journal.lost.journal_full)
    lost.add_metric(["damaged"], journal.lost.damaged)
    lost.add_metric(["refused"], shipper.refused)
    yield lost
    yield GaugeMetricFamily(
        "gateway_usage_records_waiting",
        "Records that the database does not have yet.",
        ledger.waiting,
    )
    yield GaugeMetricFamily(
        "gateway_usage_journal_bytes", "Size of the journal on disk.", journal.on_disk
    )
    yield GaugeMetricFamily(
        "gateway_usage_database_up",
        "1 while the usage database does what it is asked.",
        float(shipper.connected),
    )


def cache_metrics(cache: AnswerCache) -> Iterator[Metric]:
    """Of the cache of answers."""
    found = CounterMetricFamily(
        "gateway_response_cache_lookups", "Requests that asked the cache.", labels=["result"]
    )
    found.add_metric(["hit"], cache.hits)
    found.add_metric(["miss"], cache.misses)
    yield found
    yield GaugeMetricFamily("gateway_response_cache_entries", "Answers kept.", len(cache))
    yield GaugeMetricFamily("gateway_response_cache_bytes", "Their size.", cache.bytes)
