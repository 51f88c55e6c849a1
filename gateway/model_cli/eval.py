"""``llm-gateway model eval``."""

from __future__ import annotations

from typing import Annotated

import typer

from gateway.terminal import fail


def evaluate_model(
    per_skill: Annotated[int, typer.Option(min=1, help="Prompts per skill.")] = 50,
    fp32: Annotated[
        bool, typer.Option(help="Compare with the unquantised model (needs the convert extra).")
    ] = True,
) -> None:
    """Score the bundled model on held-out prompts: accuracy per skill, and the loss to fp32."""
    from engine.base import EngineStartError
    from gateway.model_eval import run_evaluation

    try:
        passed = run_evaluation(per_skill, with_fp32=fp32)
    except EngineStartError as error:
        fail(str(error))
    raise typer.Exit(0 if passed else 1)
