"""``llm-gateway deploy vertex monitor``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.deploy_cli.vertex_options import AsJson, SpecFile, Yes, ask
from gateway.terminal import fail

if TYPE_CHECKING:
    from deploy.vertex.monitor import Change

_CHANNEL = re.compile(r"projects/[a-z0-9-]+/notificationChannels/[0-9]+")


def monitor(
    spec: SpecFile,
    channel: Annotated[
        list[str] | None,
        typer.Option(
            help="projects/P/notificationChannels/ID that alerts go to, any number; without, "
            "policies keep those that they have."
        ),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show the requests, change nothing.")
    ] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Remove all of it again.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Create or update the endpoint's alert policies and its dashboard in Cloud Monitoring."""
    from deploy.vertex import VertexError
    from deploy.vertex.monitor import Plan, carry_out, plan_monitoring, plan_removal
    from deploy.vertex.monitor_rest import open_monitoring
    from deploy.vertex.report import as_text
    from deploy.vertex.spec import load_spec
    from gateway.stage_progress import stage_progress

    channels = tuple(channel or ())
    for name in channels:
        if not _CHANNEL.fullmatch(name):
            fail(
                f"{name} is no notification channel: give projects/PROJECT/notificationChannels/ID "
                "(gcloud beta monitoring channels list shows them)"
            )
    try:
        wanted = load_spec(spec)
        with open_monitoring(wanted.project) as api:
            if remove:
                found = Plan(plan_removal(api, wanted), 0, {})
            else:
                found = plan_monitoring(api, wanted, channels)
            if not plan and found.changes:
                if not yes:
                    typer.echo("\n".join(map(_line, found.changes)), err=True)
                    ask(yes)
                with stage_progress() as tell:
                    carry_out(api, found.changes, lambda text: tell(text, None))
    except VertexError as error:
        fail(str(error))
    if as_json:
        typer.echo(
            as_text(
                {
                    "done": not plan,
                    "changes": [
                        {"action": c.action, "kind": c.kind, "title": c.title, "body": c.body}
                        for c in found.changes
                    ],
                    "unchanged": found.unchanged,
                    "left_out": found.left_out,
                }
            )
        )
        return
    lines = [_line(each) for each in found.changes]
    if plan:
        lines = [f"{_line(each)}\n{as_text(each.body)}" for each in found.changes]
    lines.append(f"{len(found.changes)} to change" if plan else f"{len(found.changes)} changed")
    lines[-1] += f", {found.unchanged} as they should be"
    if found.left_out:
        lines.append(
            f"{len(found.left_out)} alerts of deploy/monitoring need metrics that do not leave "
            "the container: " + ", ".join(sorted(found.left_out))
        )
    typer.echo("\n".join(lines))


def _line(change: Change) -> str:
    kind = "alert policy" if change.kind == "alertPolicies" else "dashboard"
    return f"{change.action} {kind} {change.title}"
