"""``llm-gateway deploy vertex``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.deploy_cli.vertex_monitor import monitor
from gateway.deploy_cli.vertex_options import AsJson, SpecFile, Yes, ask
from gateway.deploy_cli.vertex_rollout import rollback, rollout
from gateway.terminal import fail

if TYPE_CHECKING:
    from deploy.vertex.costs import Cost
    from deploy.vertex.spec import Spec

vertex_app = typer.Typer(
    help="The gateway on Vertex AI endpoints, with GPUs.", no_args_is_help=True
)

Prices = Annotated[Path | None, typer.Option(help="Prices of your own, JSON or YAML.")]


@vertex_app.command()
def plan(
    spec: SpecFile,
    offline: Annotated[
        bool, typer.Option("--offline", help="As if nothing were there: ask no cloud.")
    ] = False,
    prices: Prices = None,
    as_json: AsJson = False,
) -> None:
    """Show the requests that apply would send, and the monthly cost. Changes nothing."""
    from deploy.vertex import VertexError
    from deploy.vertex.client import open_cloud
    from deploy.vertex.report import plan_document, plan_text
    from deploy.vertex.spec import load_spec
    from deploy.vertex.state import State, read_state
    from deploy.vertex.steps import plan_steps

    try:
        wanted = load_spec(spec)
        costing = _costs(wanted, prices)
        with open_cloud(wanted) as cloud:
            steps = plan_steps(wanted, State() if offline else read_state(cloud, wanted))
        show = plan_document if as_json else plan_text
        typer.echo(show(wanted, steps, costing))
    except VertexError as error:
        fail(str(error))


@vertex_app.command()
def apply(spec: SpecFile, yes: Yes = False, prices: Prices = None, as_json: AsJson = False) -> None:
    """Make the cloud as the spec says. Again, it changes nothing; broken off, it goes on."""
    from deploy.vertex import VertexError
    from deploy.vertex.client import open_cloud
    from deploy.vertex.report import as_text, status_text, summary
    from deploy.vertex.run import apply as carry_out
    from deploy.vertex.spec import load_spec
    from deploy.vertex.state import read_state
    from deploy.vertex.status import read_status
    from deploy.vertex.steps import plan_steps
    from gateway.stage_progress import stage_progress

    try:
        wanted = load_spec(spec)
        costing = _costs(wanted, prices)
        with open_cloud(wanted) as cloud:
            steps = plan_steps(wanted, read_state(cloud, wanted))
            if steps:
                typer.echo(summary(steps, costing), err=True)
                ask(yes)
            with stage_progress() as tell:
                taken = carry_out(cloud, wanted, lambda text: tell(text, None))
            status = read_status(cloud, wanted)
        if as_json:
            typer.echo(as_text({"steps": [step.title for step in taken], "status": status}))
            return
        done = f"{len(taken)} steps done" if taken else "nothing to do"
        typer.echo(f"{done}\n\n{status_text(status)}")
    except VertexError as error:
        fail(str(error))


@vertex_app.command()
def status(spec: SpecFile, as_json: AsJson = False) -> None:
    """Show what runs, its replicas and traffic, and where to call it."""
    from deploy.vertex import VertexError
    from deploy.vertex.client import open_cloud
    from deploy.vertex.report import as_text, status_text
    from deploy.vertex.spec import load_spec
    from deploy.vertex.status import read_status

    try:
        wanted = load_spec(spec)
        with open_cloud(wanted) as cloud:
            found = read_status(cloud, wanted)
        typer.echo(as_text(found) if as_json else status_text(found))
    except VertexError as error:
        fail(str(error))


@vertex_app.command()
def destroy(spec: SpecFile, yes: Yes = False) -> None:
    """List and remove the endpoint and every model of the spec."""
    from deploy.vertex import VertexError
    from deploy.vertex.client import open_cloud
    from deploy.vertex.destroy import destroy as take_away
    from deploy.vertex.destroy import find_doomed
    from deploy.vertex.spec import load_spec
    from gateway.stage_progress import stage_progress

    try:
        wanted = load_spec(spec)
        with open_cloud(wanted) as cloud:
            doomed = find_doomed(cloud, wanted).lines()
            if doomed:
                listed = "\n".join(f"  {line}" for line in doomed)
                typer.echo(f"This removes:\n{listed}", err=True)
                ask(yes)
            with stage_progress() as tell:
                take_away(cloud, wanted, lambda text: tell(text, None))
        typer.echo(f"removed {len(doomed)} resources" if doomed else "nothing to remove")
    except VertexError as error:
        fail(str(error))


vertex_app.command()(rollout)
vertex_app.command()(rollback)
vertex_app.command()(monitor)


def _costs(wanted: Spec, prices: Path | None) -> list[Cost]:
    """Raises VertexError for an unreadable price file."""
    from datetime import UTC, datetime

    from deploy.vertex import VertexError
    from deploy.vertex.costs import costs
    from engine.capacity import CapacityError
    from engine.capacity.prices import read_prices

    try:
        return costs(wanted, read_prices(prices), datetime.now(UTC).date())
    except CapacityError as error:
        raise VertexError(str(error)) from None
