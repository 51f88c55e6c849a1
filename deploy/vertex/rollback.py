"""The split of before a rollout, and its new version gone."""

from __future__ import annotations

from deploy.vertex import VertexError
from deploy.vertex import requests as build
from deploy.vertex.client import Cloud
from deploy.vertex.rollout_split import Record, read_record
from deploy.vertex.rollout_traffic import Traffic
from deploy.vertex.run import run_step
from deploy.vertex.spec import Spec
from deploy.vertex.state import Progress, wait_for_earlier
from deploy.vertex.steps import Step

REDEPLOY = "apply the spec of the version that you want back"


def find_record(cloud: Cloud, spec: Spec) -> Record:
    """What ``rollback`` would take back. Raises VertexError when that cannot be."""
    traffic = Traffic(cloud, spec)
    record, titles = read_record(traffic.labels()), traffic.titles()
    if record is None:
        raise VertexError(f"no rollout of {spec.name} is under way or kept: {REDEPLOY}")
    if gone := [key for key, share in record.before.items() if share and key not in titles]:
        raise VertexError(
            f"what had the traffic before ({', '.join(gone)}) is not deployed any more: {REDEPLOY}"
        )
    return record


def rollback(cloud: Cloud, spec: Spec, progress: Progress, *, keep_new: bool = False) -> Record:
    """Take a rollout back, whatever it has come to. Raises VertexError."""
    wait_for_earlier(cloud, spec, set(), progress)
    record = find_record(cloud, spec)
    take_back(cloud, spec, Traffic(cloud, spec), record, progress, keep_new=keep_new)
    return record


def take_back(
    cloud: Cloud,
    spec: Spec,
    traffic: Traffic,
    record: Record,
    progress: Progress,
    *,
    keep_new: bool = False,
) -> None:
    """Traffic first, then the deployment that lost it; each may be done already."""
    progress("the traffic goes back to where it was")
    traffic.move(record.before, Record(record.new, record.before, "back"))
    title = traffic.titles().get(record.new)
    if title is not None and not keep_new and record.before.get(record.new, 0) == 0:
        progress(f"undeploy {title}")
        request = build.undeploy_model(spec, record.new)
        run_step(cloud, Step("undeploy_model", f"undeploy {title}", request), progress)
    traffic.forget()
