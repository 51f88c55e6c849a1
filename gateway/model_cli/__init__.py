"""``llm-gateway model``: one module per command, each importing only what it needs."""

from __future__ import annotations

import typer

from gateway.model_cli.advise import advise
from gateway.model_cli.bench import bench_model
from gateway.model_cli.convert import convert_model
from gateway.model_cli.eval import evaluate_model
from gateway.model_cli.quantize import quantize_model

model_app = typer.Typer(help="Make, measure and choose models.", no_args_is_help=True)
model_app.command("convert")(convert_model)
model_app.command("eval")(evaluate_model)
model_app.command("quantize")(quantize_model)
model_app.command("bench")(bench_model)
model_app.command("advise")(advise)
