"""``llm-gateway deploy vertex rollout`` and ``rollback``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gateway.deploy_cli.vertex_options import AsJson, SpecFile, Yes, ask
from gateway.terminal import fail

if TYPE_CHECKING:
    from deploy.vertex.rollout import Watching
    from deploy.vertex.spec import Spec

Watch = Literal["monitoring", "probes", "both"]


def rollout(
    spec: SpecFile,
    deployment: Annotated[
        str | None, typer.Option(help="Its name; empty: the one with a new version.")
    ] = None,
    watch: Annotated[
        Watch,
        typer.Option(
            help="monitoring: what Cloud Monitoring has of the new version; probes: short requests "
            "of our own to it; or both."
        ),
    ] = "monitoring",
    keep_old: Annotated[
        bool, typer.Option("--keep-old", help="Leave the old version deployed, and paid for.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give a new version the traffic step by step, and take it back when it does badly."""
    from deploy.vertex import VertexError
    from deploy.vertex.client import open_cloud
    from deploy.vertex.report import as_text
    from deploy.vertex.requests import version_of
    from deploy.vertex.rollout import AGAIN, choose
    from deploy.vertex.rollout import rollout as carry_out
    from deploy.vertex.spec import load_spec
    from deploy.vertex.state import read_state
    from gateway.stage_progress import stage_progress

    try:
        wanted = load_spec(spec)
        with open_cloud(wanted) as cloud:
            if not yes:
                chosen = choose(wanted, read_state(cloud, wanted), deployment)
                typer.echo(_intent(wanted, version_of(wanted, chosen)), err=True)
                ask(yes)
            with stage_progress() as tell:
                done = carry_out(
                    cloud,
                    wanted,
                    deployment,
                    lambda endpoint: _watching(wanted, endpoint, watch),
                    lambda text: tell(text, None),
                    keep_old=keep_old,
                )
    except VertexError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail(f"broken off, the traffic stays where it is: {AGAIN}")
    if as_json:
        typer.echo(
            as_text({"version": done.version, "replaced": done.replaced, "steps": done.steps})
        )
        return
    gone = f", {' and '.join(done.replaced)} undeployed" if done.replaced else ""
    typer.echo(f"{done.version} has the traffic{gone}")


def rollback(
    spec: SpecFile,
    keep_new: Annotated[
        bool, typer.Option("--keep-new", help="Leave the new version deployed, and paid for.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give the traffic back to who had it before the rollout, and undeploy the new version."""
    from deploy.vertex import VertexError
    from deploy.vertex.client import open_cloud
    from deploy.vertex.report import as_text
    from deploy.vertex.rollback import find_record
    from deploy.vertex.rollback import rollback as take_back
    from deploy.vertex.rollout_traffic import Traffic
    from deploy.vertex.spec import load_spec
    from gateway.stage_progress import stage_progress

    try:
        wanted = load_spec(spec)
        with open_cloud(wanted) as cloud:
            record, titles = find_record(cloud, wanted), Traffic(cloud, wanted).titles()
            split = {titles[key]: share for key, share in record.before.items() if share}
            shown = ", ".join(f"{title} {share} %" for title, share in split.items())
            if not yes:
                typer.echo(f"The traffic goes back to {shown}.", err=True)
                ask(yes)
            with stage_progress() as tell:
                take_back(cloud, wanted, lambda text: tell(text, None), keep_new=keep_new)
    except VertexError as error:
        fail(str(error))
    typer.echo(as_text({"traffic": split}) if as_json else f"the traffic is back: {shown}")


def _intent(spec: Spec, version: str) -> str:
    bounds = spec.rollout
    steps = ", ".join(str(step) for step in bounds.steps)
    latency = f", p95 {bounds.max_latency_ms:.0f} ms" if bounds.max_latency_ms else ""
    return (
        f"{version} gets {steps} % of its deployment's traffic, {bounds.watch_s} s each; beyond "
        f"{bounds.max_error_rate:.1%} errors{latency} it is taken back. At the end the older "
        "version is undeployed."
    )


def _watching(spec: Spec, endpoint: Any, watch: Watch) -> Watching:
    from deploy.vertex.monitor_rest import open_monitoring
    from deploy.vertex.rollout import Watching
    from deploy.vertex.rollout_sources import LAG_S, MonitoringSource, Source, open_probes

    sources: list[Source] = []
    if watch == "monitoring" and spec.rollout.watch_s < LAG_S:
        typer.echo(
            f"watch_s is {spec.rollout.watch_s}, and figures of Cloud Monitoring are minutes late: "
            "little of a step will be seen before the next (--watch both sends probes as well)",
            err=True,
        )
    if watch != "probes":
        sources.append(MonitoringSource(open_monitoring(spec.project), spec.endpoint_id))
    if watch != "monitoring":
        sources.append(open_probes(spec, endpoint))
    return Watching(sources)
