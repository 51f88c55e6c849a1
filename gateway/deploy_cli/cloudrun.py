"""``llm-gateway deploy cloudrun``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.terminal import fail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy.cloudrun.changes import Change
    from deploy.cloudrun.costs import Costs
    from deploy.cloudrun.spec import Spec

cloudrun_app = typer.Typer(help="The gateway on Cloud Run.", no_args_is_help=True)
SpecFile = Annotated[
    Path, typer.Argument(help="The spec; deploy/cloudrun/cpu.yaml and l4.yaml are examples.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@cloudrun_app.command()
def plan(
    spec: SpecFile,
    offline: Annotated[
        bool, typer.Option("--offline", help="As if nothing were there: ask no cloud.")
    ] = False,
    prices: Annotated[
        Path | None, typer.Option(help="A price file in place of the shipped one.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the exact requests that apply would make, and the monthly cost. Changes nothing."""
    from deploy.cloudrun import CloudRunError
    from deploy.cloudrun.changes import creation, find_changes
    from deploy.cloudrun.client import open_cloud
    from deploy.cloudrun.spec import load_spec

    try:
        wanted = load_spec(spec)
        cost = _costs(wanted, prices)
        if offline:
            changes = creation(wanted)
        else:
            with open_cloud() as cloud:
                changes = find_changes(cloud, wanted)
    except CloudRunError as error:
        fail(str(error))
    if as_json:
        requests = [{"title": x.title, **x.request} for x in changes]
        money = {"currency": cost.currency, "hourly": cost.hourly, "notes": cost.notes}
        money |= {"monthly_least": cost.least, "monthly_most": cost.most}
        typer.echo(json.dumps({"requests": requests, "cost": money}, indent=2))
        return
    typer.echo("\n\n".join(x.text() for x in changes) or "nothing to do")
    typer.echo("\n" + "\n".join(cost.lines()))


@cloudrun_app.command("yaml")
def print_yaml(spec: SpecFile) -> None:
    """Print the service for ``gcloud run services replace``."""
    from deploy.cloudrun import CloudRunError
    from deploy.cloudrun.service import as_yaml
    from deploy.cloudrun.spec import load_spec

    try:
        typer.echo(as_yaml(load_spec(spec)), nl=False)
    except CloudRunError as error:
        fail(str(error))


@cloudrun_app.command()
def apply(spec: SpecFile, yes: Yes = False, as_json: AsJson = False) -> None:
    """Make the service as the spec has it. What is so already stays as it is."""
    from deploy.cloudrun import CloudRunError
    from deploy.cloudrun.changes import find_changes
    from deploy.cloudrun.client import open_cloud
    from deploy.cloudrun.run import apply as carry_out
    from deploy.cloudrun.run import status as read_status
    from deploy.cloudrun.spec import load_spec
    from gateway.stage_progress import stage_progress

    try:
        wanted = load_spec(spec)
        with open_cloud() as cloud:
            expected = find_changes(cloud, wanted)
            if expected:
                typer.echo(_listed("This changes the cloud:", expected), err=True)
                typer.echo("\n".join(_costs(wanted, None).lines()), err=True)
                _ask(yes)
            with stage_progress() as tell:
                done = carry_out(cloud, wanted, lambda text: tell(text, None))
            found = read_status(cloud, wanted)
    except CloudRunError as error:
        fail(str(error))
    if as_json:
        typer.echo(json.dumps({"done": [x.title for x in done], "status": found}, indent=2))
        return
    typer.echo(_listed("done:", done) if done else "nothing to do")
    typer.echo(_status_text(found))


@cloudrun_app.command()
def status(spec: SpecFile, as_json: AsJson = False) -> None:
    """Show what runs, where to call it, and what apply would change."""
    from deploy.cloudrun import CloudRunError
    from deploy.cloudrun.client import open_cloud
    from deploy.cloudrun.run import status as read_status
    from deploy.cloudrun.spec import load_spec

    try:
        wanted = load_spec(spec)
        with open_cloud() as cloud:
            found = read_status(cloud, wanted)
    except CloudRunError as error:
        fail(str(error))
    typer.echo(json.dumps(found, indent=2) if as_json else _status_text(found))


@cloudrun_app.command()
def destroy(spec: SpecFile, yes: Yes = False) -> None:
    """Remove the service. Images, secrets and buckets stay."""
    from deploy.cloudrun import CloudRunError
    from deploy.cloudrun.changes import find_service
    from deploy.cloudrun.client import open_cloud
    from deploy.cloudrun.run import destroy as take_away
    from deploy.cloudrun.run import kept
    from deploy.cloudrun.spec import load_spec
    from gateway.stage_progress import stage_progress

    try:
        wanted = load_spec(spec)
        with open_cloud() as cloud:
            found = find_service(cloud, wanted)
            if found is not None:
                typer.echo(f"This removes:\n  service {wanted.full_name} at {found.uri}", err=True)
                typer.echo("\n".join(["This stays:", *(f"  {x}" for x in kept(wanted))]), err=True)
                _ask(yes)
                with stage_progress() as tell:
                    take_away(cloud, wanted, lambda text: tell(text, None))
        typer.echo("removed" if found is not None else "nothing to remove")
    except CloudRunError as error:
        fail(str(error))


def _ask(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        fail("this changes the cloud, and there is no terminal to ask at: add --yes")
    typer.confirm("Go on?", abort=True, err=True)


def _listed(title: str, changes: Sequence[Change]) -> str:
    lines = [f"  {x.title}{': ' + ', '.join(x.differs) if x.differs else ''}" for x in changes]
    return "\n".join([title, *lines])


def _status_text(found: dict[str, object]) -> str:
    if not found["exists"]:
        return "there is no such service: llm-gateway deploy cloudrun apply makes it"
    ready = "ready" if found["ready"] else f"not ready: {found['message']}"
    invokers = found["invokers"]
    called_by = ", ".join(invokers) if isinstance(invokers, list) and invokers else "nobody yet"
    pending = found["pending"]
    lines = [
        f"{found['url']}: {ready}",
        f"  serves    {found['revision']}",
        f"  newest    {found['created']}",
        f"  image     {found['image']}",
        f"  called by {called_by}, with a key of the gateway",
    ]
    if isinstance(pending, list) and pending:
        lines.append(f"  apply would: {'; '.join(pending)}")
    return "\n".join(lines)


def _costs(wanted: Spec, prices: Path | None) -> Costs:
    """Raises CloudRunError for an unreadable price file."""
    from datetime import UTC, datetime

    from deploy.cloudrun import CloudRunError
    from deploy.cloudrun.costs import SHIPPED, costs
    from engine.capacity import CapacityError
    from engine.capacity.prices import read_prices

    try:
        return costs(wanted, read_prices(prices or SHIPPED), datetime.now(UTC).date())
    except CapacityError as error:
        raise CloudRunError(str(error)) from None
