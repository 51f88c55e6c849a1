"""Figures against numpy and against what vLLM writes, and comparisons against chance."""

import importlib.util
import re
from pathlib import Path
from random import Random

import numpy as np
import pytest
from bench_calls import outcome

from gateway.bench.bootstrap import Sample, expanded_tail, interval, student
from gateway.bench.compare import compare
from gateway.bench.load import StageRun
from gateway.bench.metrics import figures, most_at_once, running_over_time, tokens_over_time
from gateway.bench.options import BenchOptions, Server
from gateway.bench.outcome import Arrival, Outcome
from gateway.bench.result import document, timeline
from gateway.bench.target import Target


def run_of(*outcomes: Outcome, began: float = 0.0, ended: float = 10.0, **more: object) -> StageRun:
    run = StageRun("s", "A", False, None, 2, 0, began, ended, list(outcomes))
    run.wished = [1] * len(outcomes)
    for name, value in more.items():
        setattr(run, name, value)
    return run


def test_times_of_one_token_per_event() -> None:
    one = outcome(0.5, 0.6, 0.8)
    assert (one.ttft, one.latency) == (0.5, 0.8)
    assert one.itls() == pytest.approx([0.1, 0.2])
    assert one.tpot == pytest.approx(0.15)


def test_several_tokens_in_an_event_share_its_gap() -> None:
    one = outcome(1.0, 1.4, 1.6, tokens=6)
    assert [tokens for _, tokens in one.token_events()] == [2, 2, 2]
    assert one.itls() == pytest.approx([0.2, 0.2, 0.1, 0.1])
    assert sum(one.itls()) == pytest.approx(one.latency - one.ttft)


def test_longer_texts_are_more_tokens() -> None:
    one = outcome(1.0, 2.0, 3.0, tokens=13)
    one.arrivals = [Arrival(1.0, 2), Arrival(2.0, 16), Arrival(3.0, 2)]
    assert [tokens for _, tokens in one.token_events()] == [2, 9, 2]


def test_counts_in_every_event_are_taken_as_they_are() -> None:
    one = outcome(1.0, 2.0, 3.0, tokens=7)
    one.arrivals = [Arrival(1.0, 9, 1), Arrival(2.0, 1, 6), Arrival(3.0, 9, 7)]
    assert [tokens for _, tokens in one.token_events()] == [1, 5, 1]
    assert one.itls() == pytest.approx([0.2] * 5 + [1.0])


def test_a_token_over_several_events_came_with_the_first_of_them() -> None:
    one = outcome(1.0, 1.1, 2.0, 2.1, tokens=2)
    assert [tokens for _, tokens in one.token_events()] == [1, 0, 1, 0]
    assert one.itls() == pytest.approx([1.0])


@pytest.mark.parametrize("tokens", [3, 4])
def test_the_event_that_only_ends_is_a_token_if_one_is_missing(tokens: int) -> None:
    one = outcome(1.0, 1.1, 1.2, 1.3, tokens=tokens)
    one.arrivals[-1] = Arrival(1.3, 0, ends=True)
    assert len(one.itls()) == tokens - 1
    assert one.latency == pytest.approx(1.3)


def test_every_split_of_tokens_adds_up() -> None:
    rng = Random(4)
    for _ in range(500):
        events = rng.randint(1, 9)
        one = outcome(*(float(k) for k in range(events)), tokens=rng.randint(1, 40))
        for arrival in one.arrivals:
            arrival.weight = rng.choice((0, 1, 5, 80))
        shares = [tokens for _, tokens in one.token_events()]
        assert sum(shares) == one.output_tokens
        assert shares[0] >= 1
        assert min(shares) >= 0


def test_figures_are_those_of_numpy() -> None:
    rng = np.random.default_rng(5)
    outcomes = []
    for _ in range(40):
        times = np.cumsum(rng.exponential(0.1, rng.integers(2, 9)))
        outcomes.append(outcome(*times.tolist()))
    failed = outcome(0.1, kind="HTTP 500", message="x")
    found = figures([run_of(*outcomes, failed)], (50.0, 95.0, 99.9), {})
    ttfts = np.array([one.arrivals[0].at for one in outcomes]) * 1000
    gaps = np.concatenate([np.diff([a.at for a in one.arrivals]) for one in outcomes]) * 1000
    assert found["completed"] == 40
    assert found["failed"] == 1
    assert found["total_output_tokens"] == sum(len(one.arrivals) for one in outcomes)
    assert found["request_throughput"] == pytest.approx(4.0)
    for name, values in (("ttft", ttfts), ("itl", gaps)):
        assert found[f"mean_{name}_ms"] == pytest.approx(values.mean())
        assert found[f"median_{name}_ms"] == pytest.approx(np.median(values))
        assert found[f"std_{name}_ms"] == pytest.approx(values.std())
        assert found[f"p95_{name}_ms"] == pytest.approx(np.percentile(values, 95))
        assert found[f"p99.9_{name}_ms"] == pytest.approx(np.percentile(values, 99.9))


def test_nothing_measured_is_none_and_not_zero() -> None:
    found = figures([run_of(outcome(kind="HTTP 500", message="x"))], (99.0,), {"ttft": 1})
    assert found["mean_ttft_ms"] is None
    assert found["p99_itl_ms"] is None
    assert found["request_goodput"] == 0


def test_goodput_counts_requests_that_meet_every_objective() -> None:
    quick, late, halting = outcome(0.1, 0.15), outcome(0.4, 0.45), outcome(0.1, 0.9)
    run = run_of(quick, late, halting)
    for objectives, good in (
        ({"ttft": 200.0}, 2),
        ({"ttft": 200.0, "itl": 60.0}, 1),
        ({"tpot": 60.0}, 2),
        ({"e2el": 500.0}, 2),
        ({"e2el": 10.0}, 0),
    ):
        assert figures([run], (99.0,), objectives)["request_goodput"] == pytest.approx(good / 10)


def test_over_time() -> None:
    outcomes = [outcome(0.5, 1.5, 1.6), outcome(1.2, 2.2, start=1.0)]
    assert tokens_over_time(outcomes, 1.0) == ([0.0, 1.0, 2.0], [1.0, 3.0, 1.0])
    steps = running_over_time(outcomes)
    assert steps == [(0.0, 1), (1.0, 2), (pytest.approx(1.6), 1), (pytest.approx(2.2), 0)]
    assert most_at_once(outcomes) == 2
    following = [outcome(1.0), outcome(2.0, start=1.0)]
    assert most_at_once(following) == 1
    assert timeline([]) == {"output_tokens_per_s": [[], []], "running_requests": [[], []]}


def document_of(outcomes: list[Outcome], ended: float) -> dict:
    options = BenchOptions((Server("A", "http://127.0.0.1:1"),))
    target = Target(options.servers[0], "chat", {}, ignore_eos=False, timeout_s=1)
    return document(options, target, [run_of(*outcomes, ended=ended)], {}, "id")


def test_names_are_those_of_vllm() -> None:
    """Every field of a result of ``vllm bench serve --save-detailed`` is there, or is listed."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vllm is not installed")
    source = (Path(spec.origin).parent / "benchmarks" / "serve.py").read_text()
    begin = source.index("    if isinstance(metrics, BenchmarkMetrics):\n        result = {")
    names = set(
        re.findall(r'^            "(\w+)":', source[begin : source.index("else:", begin)], re.M)
    )
    names |= set(re.findall(r'result_json\["(\w+)"\] =', source))
    assert {"ttfts", "completed", "request_goodput", "max_concurrency"} <= names
    # Texts are not kept; the others belong to options that this command does not have.
    absent = {"generated_texts", "rtfx", "ramp_up_strategy", "ramp_up_start_rps", "ramp_up_end_rps"}
    found = document_of([outcome(0.5, 0.6)], 10.0)
    assert names - set(found) == absent
    times = {
        f"{s}_{m}_ms"
        for s in ("mean", "median", "std", "p99")
        for m in ("ttft", "tpot", "itl", "e2el")
    }
    assert times <= set(found)


def load(seed: int, pace: float, count: int = 400) -> dict:
    """A run of one caller whose tokens take about ``pace`` seconds each."""
    rng = np.random.default_rng(seed)
    outcomes, now = [], 0.0
    for _ in range(count):
        times = now + np.cumsum(rng.gamma(9, pace / 9, 10))
        outcomes.append(outcome(*times.tolist(), start=now))
        now = times[-1]
    return document_of(outcomes, now)


def verdicts(a: dict, b: dict) -> dict[str, str]:
    [section] = compare(a, b)
    return {row["name"]: row["verdict"] for row in section["rows"]}


def test_a_run_equals_its_like_and_a_slower_one_is_slower() -> None:
    a = load(1, 0.02)
    same = verdicts(a, load(2, 0.02))
    assert sum(verdict in ("higher", "lower") for verdict in same.values()) <= 2
    slower = verdicts(a, load(3, 0.024))
    for name in ("mean_ttft_ms", "median_itl_ms", "mean_e2el_ms", "p95_itl_ms"):
        assert slower[name] == "higher"
    assert slower["output_throughput"] == slower["request_throughput"] == "lower"
    assert slower["p99_ttft_ms"] == "too few values"


def test_intervals_cover_what_they_should() -> None:
    """Of two runs that do not differ, about one interval in twenty may exclude zero."""
    outside = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)

        def sample(rng: np.random.Generator = rng) -> Sample:
            return Sample.of([rng.exponential(20, 12) + rng.normal(100, 3) for _ in range(8)])

        a, b = sample(), sample()
        found = interval(a.mean, b.mean, 8, 8, paired=False)
        assert found is not None
        outside += not found[0] <= 0 <= found[1]
    assert outside <= 9


def test_students_quantiles() -> None:
    for freedom, quantile in ((1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042)):
        assert student(0.975, freedom) == pytest.approx(quantile, rel=2e-3)
    assert expanded_tail(10_000) == pytest.approx(0.025, rel=1e-2)
    assert expanded_tail(5) < 0.005


def test_weighted_percentiles_are_those_of_repeated_clusters() -> None:
    rng = np.random.default_rng(3)
    parts = [rng.normal(k, 1, 7 + k).tolist() for k in range(4)]
    sample = Sample.of(parts)
    weights = np.array([[2.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    repeats = zip(parts, weights[0], strict=True)
    repeated = np.sort(np.concatenate([np.tile(part, int(weight)) for part, weight in repeats]))
    assert sample.mean(weights) == pytest.approx([repeated.mean(), np.nan], nan_ok=True)
    expected = np.percentile(repeated, 90, method="inverted_cdf")
    assert sample.percentile(weights, 90) == pytest.approx([expected, np.nan], nan_ok=True)


def test_a_result_without_single_requests_has_no_intervals() -> None:
    a, b = load(1, 0.02), load(2, 0.04)
    for name in ("ttfts", "itls", "stages"):
        b.pop(name)
    [section] = compare(a, b)
    row = next(row for row in section["rows"] if row["name"] == "mean_itl_ms")
    assert (row["low"], row["verdict"]) == (None, "unknown")
    assert row["percent"] == pytest.approx(100, rel=0.1)
