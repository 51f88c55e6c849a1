"""A new version of a deployment takes over step by step, and goes again when it does badly.

Everything that it needs to go on is in the cloud: versions and traffic in the endpoint, the split
of before in its labels. So it may be broken off anywhere, and given again it goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from deploy.vertex import VertexError
from deploy.vertex import requests as build
from deploy.vertex.client import Cloud
from deploy.vertex.health_window import Window, fault, says_enough
from deploy.vertex.rollback import take_back
from deploy.vertex.rollout_sources import Source
from deploy.vertex.rollout_split import Record, deployment_of, read_record, share_at, split_at
from deploy.vertex.rollout_traffic import Traffic
from deploy.vertex.run import run_step
from deploy.vertex.spec import Deployment, Spec
from deploy.vertex.state import Progress, State, read_state, wait_for_earlier
from deploy.vertex.steps import Step

EVERY_S = 10.0
AGAIN = "rollout goes on from here, rollback takes it back"


class RolledBack(VertexError):
    """The new version passed a bound and has been taken back."""


@dataclass(frozen=True, slots=True)
class Watching:
    """How steps are watched.

    Attributes:
        sources: where to look; the first fault counts.
        every_s: seconds between two looks.
    """

    sources: Sequence[Source]
    every_s: float = EVERY_S
    now: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for source in self.sources:
            source.close()


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a rollout: the versions, and the percentages that were watched."""

    version: str
    replaced: list[str]
    steps: list[int]


def choose(spec: Spec, state: State, name: str | None) -> Deployment:
    """The deployment to roll out: ``name``, or the only one that has an older version.

    Raises VertexError.
    """
    by_name = {each.name: each for each in spec.deployments}
    if name is not None and name not in by_name:
        raise VertexError(f"the spec has no deployment {name}: take one of {', '.join(by_name)}")
    if spec.scales_to_zero:
        raise VertexError(
            "an endpoint that scales to zero holds one deployed model, so two versions cannot "
            "share its traffic: llm-gateway deploy vertex apply exchanges them"
        )
    if state.endpoint is None:
        raise VertexError(
            f"there is no endpoint {spec.endpoint_name} yet: llm-gateway deploy vertex apply "
            "makes it"
        )
    older = {each for each in by_name if older_versions(spec, by_name[each], state)}
    if name is None and len(older) > 1:
        raise VertexError(
            f"{', '.join(sorted(older))} have new versions: choose one with --deployment"
        )
    chosen = name or next(iter(older), None)
    if chosen is None or chosen not in older:
        raise VertexError(
            f"{chosen or spec.name} runs no version but the spec's: there is nothing to roll "
            "out (llm-gateway deploy vertex plan shows what else differs)"
        )
    return by_name[chosen]


def older_versions(spec: Spec, deployment: Deployment, state: State) -> dict[str, str]:
    """Titles by id of what is deployed of the deployment and is not the spec's version."""
    wanted = build.version_of(spec, deployment)
    return {
        each.id: each.display_name
        for each in state.deployed()
        if deployment_of(each.display_name) == deployment.name and each.display_name != wanted
    }


def rollout(
    cloud: Cloud,
    spec: Spec,
    name: str | None,
    watching: Callable[[Any], Watching],
    progress: Progress,
    *,
    keep_old: bool = False,
) -> Done:
    """Bring the spec's version of a deployment to all of its traffic. Raises RolledBack, and
    VertexError.

    Args:
        watching: how to watch, from the endpoint (the API's message).
        keep_old: leave the older version deployed, without traffic, for a rollback.
    """
    names = {build.model_name(spec, each) for each in spec.deployments}
    wait_for_earlier(cloud, spec, names, progress)
    state, traffic = read_state(cloud, spec), Traffic(cloud, spec)
    if (ended := _all_but_ended(state)) is not None:
        traffic.forget()
        return Done(ended, [], [])
    deployment = choose(spec, state, name)
    old = older_versions(spec, deployment, state)
    begun = _record_under_way(spec, deployment, state)
    if begun is None and not any(key in state.split() for key in old):
        raise VertexError(
            f"{deployment.name} has no traffic to take over: llm-gateway deploy vertex apply sets "
            "it as the spec says"
        )
    with watching(state.endpoint) as how:
        new = _deployed(cloud, spec, deployment, state, progress)
        record = begun or Record(new, traffic.split())
        steps = _step_through(cloud, spec, record, frozenset(old), how, progress)
    version = build.version_of(spec, deployment)
    if keep_old:
        traffic.move(traffic.split(), Record(new, record.before, "done"))
        return Done(version, [], steps)
    for key, title in old.items():
        progress(f"undeploy {title}")
        request = build.undeploy_model(spec, key)
        run_step(cloud, Step("undeploy_model", f"undeploy {title}", request), progress)
    traffic.forget()
    return Done(version, sorted(old.values()), steps)


def _step_through(
    cloud: Cloud,
    spec: Spec,
    record: Record,
    old: frozenset[str],
    how: Watching,
    progress: Progress,
) -> list[int]:
    """From wherever the traffic is to all of it; the shares that were watched."""
    traffic, new = Traffic(cloud, spec), record.new
    version = traffic.titles().get(new, new)
    total = sum(record.before.get(key, 0) for key in (*old, new))
    watched = []
    for step in spec.rollout.steps:
        share = share_at(total, step)
        if traffic.share(new) > share:
            continue
        progress(f"{version}: {share} % of the endpoint's traffic")
        traffic.move(split_at(record.before, old, new, step), record)
        told = _watch(spec, new, how, progress, f"{version} at {share} %")
        if told is not None:
            try:
                take_back(cloud, spec, traffic, record, progress)
            except VertexError as error:
                raise VertexError(
                    f"{version} has to go back ({told}), and that failed: {error}: end it with "
                    "llm-gateway deploy vertex rollback"
                ) from None
            raise RolledBack(f"{version} has been rolled back: {told}")
        watched.append(share)
    return watched


def _deployed(
    cloud: Cloud, spec: Spec, deployment: Deployment, state: State, progress: Progress
) -> str:
    """The id of the spec's version, once it runs; it gets no traffic by that."""
    version = build.version_of(spec, deployment)
    if version in state.by_version():
        return str(state.by_version()[version].id)
    name = build.model_name(spec, deployment)
    if name not in state.models:
        title = f"upload model {build.model_id(spec, deployment)}"
        progress(title)
        request = build.upload_model(spec, deployment)
        run_step(cloud, Step("upload_model", title, request, makes=name), progress)
    title = f"deploy {version} on {deployment.machine.type}, without traffic"
    progress(title)
    request = build.deploy_model(spec, deployment, alone=False)
    run_step(cloud, Step("deploy_model", title, request), progress)
    return Traffic(cloud, spec).id_of(version)


def _all_but_ended(state: State) -> str | None:
    """The version of a rollout that only left its record, or None."""
    if state.endpoint is None:
        return None
    record = read_record(state.endpoint.labels)
    titles = {each.id: each.display_name for each in state.deployed()}
    if record is None or record.phase != "forward" or record.new not in titles:
        return None
    name = deployment_of(titles[record.new])
    alone = [title for title in titles.values() if deployment_of(title) == name]
    return titles[record.new] if len(alone) == 1 else None


def _record_under_way(spec: Spec, deployment: Deployment, state: State) -> Record | None:
    """The record of this very rollout, begun earlier. Raises VertexError when it is another's."""
    titles = {each.id: each.display_name for each in state.deployed()}
    record, version = read_record(state.endpoint.labels), build.version_of(spec, deployment)
    if record is None or record.phase == "done":
        return None
    if not any(key in titles for key in record.before if key != record.new):
        return None  # whatever it replaced has gone by other ways
    if record.phase == "back":
        raise VertexError(
            f"{titles.get(record.new, 'a version')} is being rolled back: end that with "
            "llm-gateway deploy vertex rollback"
        )
    if record.new not in titles:
        return None
    if titles[record.new] != version:
        raise VertexError(
            f"{titles[record.new]} is being rolled out and the spec now says {version}: finish "
            "that with its own spec, or take it back with llm-gateway deploy vertex rollback"
        )
    return record


def _watch(spec: Spec, new: str, how: Watching, progress: Progress, title: str) -> str | None:
    """Look at one step until its time is over; the fault that ends it, or None.

    Raises VertexError when nothing can be seen at the end: that is no reason to go on.
    """
    bounds = spec.rollout
    for source in how.sources:
        source.begin(new)
    ends = how.now() + bounds.watch_s
    while True:
        is_last = how.now() >= ends
        enough = False
        for source in how.sources:
            try:
                window = source.look()
            except VertexError as error:
                if is_last:
                    raise VertexError(f"{title}: {error}: {AGAIN}") from None
                progress(f"{title}: {error}")
                continue
            if (told := fault(window, bounds)) is not None:
                return told
            enough = enough or says_enough(window, bounds)
            progress(f"{title}: {_seen(window, ends - how.now())}")
        if is_last:
            if how.sources and not enough:
                progress(f"{title}: too few requests to conclude anything")
            return None
        how.pause(min(how.every_s, max(0.0, ends - how.now())))


def _seen(window: Window, left_s: float) -> str:
    return f"{window}, {left_s:.0f} s left" if left_s > 0 else str(window)
