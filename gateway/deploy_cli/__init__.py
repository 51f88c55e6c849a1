"""``llm-gateway deploy``: one module per target, each importing only what it needs."""

from __future__ import annotations

import typer

from gateway.deploy_cli.cloudrun import cloudrun_app
from gateway.deploy_cli.vertex import vertex_app

deploy_app = typer.Typer(
    help="Deploy on a cloud: plan, apply, change, remove.", no_args_is_help=True
)
deploy_app.add_typer(vertex_app, name="vertex")
deploy_app.add_typer(cloudrun_app, name="cloudrun")
