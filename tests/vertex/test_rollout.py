"""``rollout`` and ``rollback`` with the unmodified SDK against the strict emulator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from monitor_emulator import Figures, MonitoringEmulator
from rollout_site import NEW, NEWER, OLD, ROLLOUT, Site
from vertex_emulator import Emulator
from vertex_specs import IMAGE, Workbench, changed, two_deployments

from deploy.vertex import VertexError
from deploy.vertex.rollback import find_record
from deploy.vertex.rollout import RolledBack
from deploy.vertex.rollout_split import Record, read_record, split_at, without_record


@pytest.fixture
def site(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with MonitoringEmulator() as monitoring:
        monkeypatch.setenv("MONITORING_API_ENDPOINT", monitoring.url)
        yield Site(bench, monitoring)


def test_rollout_goes_through(site: Site) -> None:
    site.start()
    sent = len(site.bench.emulator.changes)
    (old,) = site.versions
    done = site.rollout()
    assert done.steps == [10, 50, 100]
    assert done.replaced == [old]
    assert site.splits[-3:] == [{OLD: 90, NEW: 10}, {OLD: 50, NEW: 50}, {NEW: 100}]
    assert site.bench.emulator.methods[sent:] == [
        "uploadModel",
        "deployModel",
        *["updateEndpoint"] * 3,
        "undeployModel",
        "updateEndpoint",
    ]
    assert "trafficSplit" not in site.bench.emulator.changes[sent + 1].body
    assert site.clock.time == 3 * 30
    assert "[90s]" in site.monitoring.asked[-1]  # figures are late: earlier steps count on
    assert site.split == {done.version: 100}
    assert site.record is None
    assert all(f'deployed_model_id="{NEW}"' in query for query in site.monitoring.asked)
    assert site.bench.apply() == []  # the spec has nothing left to ask for


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        (Figures(100, 5), "5.0% of 100 requests failed, more than max_error_rate 2.0%"),
        (Figures(100, None, 1500.0), "is 1500 ms, more than max_latency_ms 1000"),
    ],
)
@pytest.mark.parametrize("step", [10, 50])
def test_rollout_goes_back(site: Site, figures: Figures, told: str, step: int) -> None:
    site.start()
    (old,) = site.versions
    begins = {10: 0.0, 50: 30.0}[step]
    site.clock.events = [(begins + 15, lambda: site.monitoring.figures.update({NEW: figures}))]
    with pytest.raises(RolledBack, match=told):
        site.rollout()
    assert site.splits[-2][NEW] == step
    assert site.splits[-1] == {OLD: 100}
    assert site.clock.time == begins + 15
    assert site.versions == [old]
    assert site.split == {old: 100}
    assert site.record is None


def test_rollout_concludes_nothing_from_few_requests(site: Site) -> None:
    site.start()
    site.monitoring.figures[NEW] = Figures(3, 3)
    assert site.rollout().steps == [10, 50, 100]
    assert any("too few requests to conclude anything" in line for line in site.bench.told)


def test_rollout_does_not_go_on_blindly(site: Site) -> None:
    site.start()
    site.clock.events = [(31, lambda: setattr(site.monitoring, "denied", True))]
    with pytest.raises(VertexError, match=r"at 50 %: .*403.*monitoring.editor.*rollout goes on"):
        site.rollout()
    assert sorted(site.split.values()) == [50, 50]
    site.monitoring.denied = False
    assert site.rollout().steps == [50, 100]


def test_rollout_bears_a_moment_without_monitoring(site: Site) -> None:
    site.start()
    site.clock.events = [(5, lambda: setattr(site.monitoring, "broken", 6))]
    assert site.rollout().steps == [10, 50, 100]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("position", range(7))
def test_rollout_goes_on_after_a_crash(site: Site, position: int, after: bool) -> None:
    site.start()
    emulator = site.bench.emulator
    emulator.cut_at, emulator.cut_after = len(emulator.changes) + position, after
    with pytest.raises(VertexError, match="connection to Vertex AI failed"):
        site.rollout()
    emulator.cut_at = None
    if (position, after) == (6, True):  # only its record was left, and that is gone
        with pytest.raises(VertexError, match="there is nothing to roll out"):
            site.rollout()
    else:
        assert set(site.rollout().steps) <= {10, 50, 100}
    (only,) = site.versions
    assert site.split == {only: 100}
    assert site.record is None
    sent = 3 if (position, after) == (1, False) else 2
    assert emulator.methods.count("deployModel") == sent
    assert site.bench.apply() == []


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("position", range(3))
def test_rollback_goes_on_after_a_crash(site: Site, position: int, after: bool) -> None:
    site.start()
    (old,) = site.versions
    site.monitoring.figures[NEW] = Figures(100, 50)
    emulator = site.bench.emulator
    # The upload, the deployment and the first step come before what is taken back.
    emulator.cut_at, emulator.cut_after = len(emulator.changes) + 3 + position, after
    with pytest.raises(VertexError, match=r"has to go back \(50.0% .* connection to Vertex AI"):
        site.rollout()
    emulator.cut_at = None
    if (position, after) == (2, True):
        with pytest.raises(VertexError, match="no rollout of chat is under way"):
            site.rollback()
    else:
        if site.record is not None and site.record.phase == "back":
            with pytest.raises(VertexError, match="is being rolled back: end that"):
                site.rollout()
        site.rollback()
    assert site.versions == [old]
    assert site.split == {old: 100}
    assert site.record is None


def interrupted(site: Site, at: float) -> None:
    """Break a rollout off at this time, as Ctrl-C does."""

    def stop() -> None:
        raise KeyboardInterrupt

    site.clock.events = [(at, stop)]
    with pytest.raises(KeyboardInterrupt):
        site.rollout()


def test_rollback_by_hand_in_the_middle(site: Site) -> None:
    site.start()
    (old,) = site.versions
    interrupted(site, 40)
    assert sorted(site.split.values()) == [50, 50]
    assert site.record == Record(NEW, {OLD: 100})
    site.rollback()
    assert site.split == {old: 100}
    assert site.versions == [old]
    assert site.record is None
    with pytest.raises(VertexError, match="no rollout of chat is under way or kept"):
        find_record(site.bench.cloud, site.bench.spec)


def test_rollback_by_hand_of_a_kept_version(site: Site) -> None:
    site.start()
    (old,) = site.versions
    done = site.rollout(keep_old=True)
    assert sorted(site.versions) == sorted([old, done.version])
    assert site.split == {done.version: 100}
    site.rollback(keep_new=True)
    assert site.split == {old: 100}
    assert len(site.versions) == 2
    assert site.rollout().steps == [10, 50, 100]
    assert site.versions == [done.version]


def test_rollout_leaves_other_deployments_alone(site: Site) -> None:
    site.bench.use(two_deployments(70, 30) | {"rollout": ROLLOUT})
    site.bench.apply()
    newer = two_deployments(70, 30) | {"rollout": {**ROLLOUT, "steps": [25, 100]}}
    newer["deployments"][1]["image"] = NEWER
    site.bench.use(newer)
    assert site.rollout("qwen").steps == [8, 30]
    assert site.splits[-2:] == [{OLD: 70, "7002": 22, "7003": 8}, {OLD: 70, "7003": 30}]
    assert site.bench.apply() == []


def test_rollout_refuses_what_it_cannot_do(site: Site) -> None:
    bench = site.bench
    with pytest.raises(VertexError, match="there is no endpoint"):
        site.rollout()
    site.start()
    with pytest.raises(VertexError, match="the spec has no deployment nobody"):
        site.rollout("nobody")
    interrupted(site, 10)
    bench.use(changed(rollout=ROLLOUT, deployments__0__image=IMAGE.replace("1.0.0", "1.2.0")))
    with pytest.raises(VertexError, match=r"is being rolled out and the spec now says"):
        site.rollout()
    assert bench.emulator.methods.count("deployModel") == 2
    bench.use(changed(rollout=ROLLOUT, deployments__0__image=NEWER))
    site.rollout()
    with pytest.raises(VertexError, match="there is nothing to roll out"):
        site.rollout()


def test_rollout_of_what_scales_to_zero(site: Site) -> None:
    zero = {"min_replicas": 0, "max_replicas": 2, "scale_to_zero": {}}
    site.bench.use(changed(deployments__0__scaling=zero))
    site.bench.apply()
    with pytest.raises(VertexError, match="holds one deployed model"):
        site.rollout()


def test_rollout_says_what_the_quota_allows(site: Site, emulator: Emulator) -> None:
    site.start()
    (old,) = site.versions
    emulator.quota["NVIDIA_L4"] = 2
    with pytest.raises(VertexError, match="the project's quota is used up"):
        site.rollout()
    assert site.split == {old: 100}


@pytest.mark.parametrize("steps", [(1, 3, 10), (3, 33, 50), (10, 50, 99), (33, 50, 99)])
def test_rollout_splits_sum_to_a_hundred(steps: tuple[int, ...]) -> None:
    before = {"a": 7, "b": 4, "other": 60, "third": 29}
    last = 0
    for step in (*steps, 100):
        split = split_at(before, frozenset("ab"), "new", step)
        assert sum(split.values()) == 100
        assert (split["other"], split["third"]) == (60, 29)
        assert split["new"] >= max(last, 1)
        last = split["new"]
    assert split == {"other": 60, "third": 29, "new": 11}


def test_rollout_records_fit_into_labels() -> None:
    record = Record("1234567890123456789", {"1234567890123456788": 90, "123": 10})
    labels = {"team": "x", **record.labels()}
    assert read_record(labels) == record
    assert without_record(labels) == {"team": "x"}
    assert all(len(key) <= 63 and len(value) <= 63 for key, value in labels.items())
    assert read_record({"rollout-new": "1", "rollout-phase": "sideways"}) is None
