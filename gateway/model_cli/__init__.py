"""``llm-gateway model``: one module per command, each importing only what it needs."""

from __future__ import annotations

import typer

from gateway.model_cli.eval import evaluate_model

model_app = typer.Typer(help="Make, measure and choose models.", no_args_is_help=True)
model_app.command("eval")(evaluate_model)
