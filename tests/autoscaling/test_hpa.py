"""The HPA's algorithm as kube-controller-manager has it, case by case and by its properties."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.autoscaling.hpa import (
    USUAL_DOWN,
    USUAL_UP,
    Autoscaler,
    Direction,
    Hpa,
    Metric,
    MetricError,
    Rate,
    by_pods,
    by_total,
    proposed,
)

FREE = Direction(0.0, (Rate("Pods", 1000, 1.0),))
WAITING = Metric("Pods", "waiting", 4000)


def hpa(up: Direction = FREE, down: Direction = FREE, least: int = 1, most: int = 100) -> Hpa:
    return Hpa(least, most, (WAITING,), up, down)


def pods(count: int, **others: Any) -> Any:
    return {f"p{n}": "running" for n in range(count)} | others


def even(count: int, value: int) -> dict[str, int]:
    return {f"p{n}": value for n in range(count)}


@pytest.mark.parametrize(
    ("count", "value", "wanted"),
    [
        (2, 4000, 2),
        (2, 4400, 2),  # a tenth above is left alone
        (2, 4401, 3),
        (2, 3600, 2),
        (2, 3599, 2),  # 1.8 rounds up
        (10, 3599, 9),
        (3, 12_000, 9),
        (3, 0, 0),
    ],
)
def test_the_ratio_times_the_pods_rounded_up(count: int, value: int, wanted: int) -> None:
    assert by_pods(hpa(), count, pods(count), even(count, value), 4000) == wanted


def test_pods_without_a_value_hold_both_directions_back() -> None:
    # Down: they count as on target. (0 + 0 + 4000) / 3 = 1333, so 1 of 3 replaces 0 of 2.
    assert by_pods(hpa(), 3, pods(3), even(2, 0), 4000) == 1
    # Up: they count as idle. (16000 + 0) / 2 = 8000 instead of 16000.
    assert by_pods(hpa(), 2, pods(2), even(1, 16_000), 4000) == 4
    # Up, and on second thoughts down: nothing happens.
    assert by_pods(hpa(), 3, pods(3), even(1, 6000), 4000) == 3
    # On second thoughts within the tolerance: nothing happens.
    assert by_pods(hpa(), 2, pods(2), even(1, 8000), 4000) == 2
    with pytest.raises(MetricError, match="no ready pod"):
        by_pods(hpa(), 2, pods(2), {}, 4000)


def test_pods_that_begin_count_as_idle_when_more_are_asked_for() -> None:
    begins = pods(1, new="pending")
    assert by_pods(hpa(), 2, begins, {"p0": 16_000}, 4000) == 4
    assert by_pods(hpa(), 2, begins, {"p0": 16_000, "new": 99_000}, 4000) == 4
    # With its share of the work the new one brings the others within the tolerance.
    assert by_pods(hpa(), 3, pods(2, new="pending"), even(2, 6500), 4000) == 3
    # And do not count at all when fewer are.
    assert by_pods(hpa(), 2, begins, {"p0": 400}, 4000) == 1


def test_pods_that_leave_do_not_count() -> None:
    leaves = pods(2, old="leaving")
    assert by_pods(hpa(), 2, leaves, {**even(2, 8000), "old": 0}, 4000) == 4


def test_a_change_of_sides_by_the_number_of_pods_alone_is_none() -> None:
    # Seven are asked for and two are there so far; more load must not end in a target of three.
    assert by_pods(hpa(), 7, pods(1, new="pending"), {"p0": 9000}, 4000) == 7


@pytest.mark.parametrize(
    ("current", "total", "wanted"),
    [(0, 0, 0), (0, 1, 1), (0, 9000, 3), (2, 8800, 2), (2, 8801, 3), (3, 0, 0)],
)
def test_a_total_is_shared(current: int, total: int, wanted: int) -> None:
    assert by_total(hpa(), current, total, 4000) == wanted


def test_the_metric_that_asks_for_most_decides_and_a_silent_one_forbids_fewer() -> None:
    both = Hpa(1, 100, (WAITING, Metric("External", "queue", 1000)), FREE, FREE)
    two = pods(2)
    assert proposed(both, 2, two, {"waiting": even(2, 16_000), "queue": 3000}) == 8
    assert proposed(both, 2, two, {"waiting": even(2, 0), "queue": 3000}) == 3
    assert proposed(both, 2, two, {"waiting": None, "queue": 3000}) == 3
    with pytest.raises(MetricError, match="waiting: the metrics API has nothing"):
        proposed(both, 2, two, {"waiting": None, "queue": 1000})
    with pytest.raises(MetricError, match=r"waiting: .*; queue: "):
        proposed(both, 2, two, {})
    silent = Autoscaler(both).decide(0.0, 2, two, {"waiting": None, "queue": 1000})
    assert (silent.replicas, silent.asked) == (2, None)
    assert "waiting" in silent.fault


def test_down_goes_by_the_most_of_the_window_and_up_by_the_least() -> None:
    down = Autoscaler(hpa(down=Direction(60.0, FREE.rates)))
    assert down.decide(0, 4, pods(4), {"waiting": even(4, 4000)}).replicas == 4
    assert down.decide(30, 4, pods(4), {"waiting": even(4, 2000)}).replicas == 4
    assert down.decide(59, 4, pods(4), {"waiting": even(4, 0)}).replicas == 4
    assert down.decide(61, 4, pods(4), {"waiting": even(4, 0)}).replicas == 2
    assert down.decide(91, 2, pods(2), {"waiting": even(2, 0)}).replicas == 1
    up = Autoscaler(hpa(up=Direction(60.0, FREE.rates)))
    assert up.decide(0, 2, pods(2), {"waiting": even(2, 16_000)}).replicas == 2
    assert up.decide(30, 2, pods(2), {"waiting": even(2, 8000)}).replicas == 2
    assert up.decide(61, 2, pods(2), {"waiting": even(2, 16_000)}).replicas == 4


def test_rates_look_back_over_their_period() -> None:
    up = Direction(0.0, (Rate("Pods", 2, 60.0), Rate("Percent", 100, 60.0)))
    scaler = Autoscaler(hpa(up=up))
    much = {"waiting": even(1, 4_000_000)}
    assert scaler.decide(0, 1, pods(1), much).replicas == 3  # 2 pods are more than 100 %
    assert scaler.decide(30, 3, pods(3), {"waiting": even(3, 400_000)}).replicas == 3
    assert scaler.decide(61, 3, pods(3), {"waiting": even(3, 400_000)}).replicas == 6
    least = Autoscaler(hpa(up=Direction(0.0, up.rates, "Min")))
    assert least.decide(0, 1, pods(1), much).replicas == 2
    never = Autoscaler(hpa(up=Direction(0.0, up.rates, "Disabled")))
    assert never.decide(0, 1, pods(1), much).replicas == 1
    down = Direction(0.0, (Rate("Pods", 1, 120.0),))
    slow = Autoscaler(hpa(down=down))
    idle = {"waiting": even(5, 0)}
    assert slow.decide(0, 5, pods(5), idle).replicas == 4
    assert slow.decide(119, 4, pods(4), idle).replicas == 4
    assert slow.decide(120, 4, pods(4), idle).replicas == 3


def test_the_defaults_double_or_add_four_and_wait_five_minutes() -> None:
    usual = Autoscaler(Hpa(1, 100, (WAITING,), USUAL_UP, USUAL_DOWN))
    assert usual.decide(0, 1, pods(1), {"waiting": even(1, 999_000)}).replicas == 5
    assert usual.decide(16, 5, pods(5), {"waiting": even(5, 999_000)}).replicas == 10
    assert usual.decide(32, 10, pods(10), {"waiting": even(10, 0)}).replicas == 10
    assert usual.decide(317, 10, pods(10), {"waiting": even(10, 0)}).replicas == 1


def test_bounds_hold_whatever_metrics_say() -> None:
    scaler = Autoscaler(hpa(least=2, most=4))
    assert scaler.decide(0, 1, pods(1), {}).replicas == 2
    assert scaler.decide(1, 9, pods(9), {}).replicas == 4
    assert scaler.decide(2, 4, pods(4), {"waiting": even(4, 99_000)}).replicas == 4
    assert scaler.decide(3, 2, pods(2), {"waiting": even(2, 0)}).replicas == 2
    assert scaler.decide(4, 0, {}, {"waiting": even(2, 0)}).replicas == 0  # turned off


RATES = st.lists(
    st.builds(
        Rate,
        st.sampled_from(["Pods", "Percent"]),
        st.integers(1, 20),
        st.floats(1, 50).map(lambda s: float(round(s))),
    ),
    min_size=1,
    max_size=3,
).map(tuple)
DIRECTIONS = st.builds(
    Direction, st.floats(0, 60).map(round), RATES, st.sampled_from(["Max", "Min", "Disabled"])
)


@given(DIRECTIONS, DIRECTIONS, st.lists(st.integers(0, 200_000), min_size=5, max_size=40))
def test_no_history_breaks_a_window_a_rate_or_a_bound(
    up: Direction, down: Direction, loads: list[int]
) -> None:
    scaler = Autoscaler(hpa(up, down, least=1, most=12))
    current, had, asked = 3, [(-1e9, 3)], [(0.0, 3)]
    for now, load in enumerate(loads):
        decision = scaler.decide(now, current, pods(current), {"waiting": even(current, load)})
        assert decision.asked is not None
        asked.append((now, decision.asked))
        new = decision.replicas
        assert 1 <= new <= 12
        sign = (new > current) - (new < current)
        if sign:
            rule = up if sign > 0 else down
            assert rule.select != "Disabled"
            recent = [n for at, n in asked if at > now - rule.window_s] + [decision.asked]
            # Nothing in the window asked for less of a change.
            assert sign * (min(recent) if sign > 0 else max(recent)) >= sign * new
            strict = min if rule.select == "Min" else max
            allowed = []
            for rate in rule.rates:
                began = next(n for at, n in reversed(had) if at <= now - rate.period_s)
                change = rate.value if rate.kind == "Pods" else began * rate.value / 100
                allowed.append(sign * (began + sign * change))
            assert sign * new <= math.ceil(strict(allowed))
        current = new
        had.append((now, current))


@given(st.integers(1, 30), st.integers(0, 80), st.integers(500, 20_000))
def test_a_load_that_stays_is_met_at_once_and_then_left_alone(
    begin: int, requests: int, target: int
) -> None:
    scaler = Autoscaler(Hpa(1, 1000, (Metric("Pods", "waiting", target),), FREE, FREE))
    current = begin
    for now in range(0, 50, 10):
        share = {f"p{n}": requests * 1000 // current for n in range(current)}
        before, current = (
            current,
            scaler.decide(now, current, pods(current), {"waiting": share}).replicas,
        )
    assert current == before
    assert current * target * 1.1 >= requests * 1000 - current * 1.1
    assert current == 1 or (current - 1) * target * 0.9 < requests * 1000 + current
