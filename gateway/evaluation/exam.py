"""The bundled model's examination, through the engine that serves it."""

from __future__ import annotations

import asyncio
import importlib.util
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from engine.config import EngineConfig
from engine.models.bundled.heldout import items
from engine.models.evaluate import EvalTable
from engine.registry import build_engine
from gateway.evaluation.asker import examine


def run_evaluation(per_skill: int, *, with_fp32: bool) -> bool:
    """Print the table; returns whether the served variant reaches the thresholds."""
    console = Console()
    served = EngineConfig(kind="onnx")
    label, score = asyncio.run(score_variant(served, per_skill))
    reference: EvalTable | None = None
    if with_fp32 and label != "fp32":
        if importlib.util.find_spec("torch") is None:
            console.print("fp32 is left out: it needs the extra 'convert'.")
        else:
            _, reference = asyncio.run(score_variant(replace(served, precision="fp32"), per_skill))
    console.print(table_of(label, score, reference))
    return score.passed


async def score_variant(config: EngineConfig, per_skill: int) -> tuple[str, EvalTable]:
    """The precision that was served, and its scores."""
    engine = build_engine(config)
    scores = await examine(engine, list(items(per_skill)))
    quantization = engine.info.quantization
    return ("fp32" if quantization == "none" else quantization), scores


def table_of(label: str, score: EvalTable, reference: EvalTable | None) -> Table:
    """Accuracy per skill, and beside it fp32 and what is lost to it."""
    table = Table(title="Bundled model on held-out prompts")
    table.add_column("skill")
    for name in ("correct", "total", label):
        table.add_column(name, justify="right")
    if reference is not None:
        table.add_column("fp32", justify="right")
        table.add_column("loss", justify="right")
    exact = {entry.skill: entry.accuracy for entry in reference.scores} if reference else {}

    def add(skill: str, correct: int, total: int, ours: float, theirs: float) -> None:
        row = [skill, str(correct), str(total), f"{ours:.1%}"]
        if reference is not None:
            row += [f"{theirs:.1%}", f"{theirs - ours:+.1%}"]
        table.add_row(*row)

    for entry in score.scores:
        theirs = exact.get(entry.skill, 0.0)
        add(entry.skill, entry.correct, entry.total, entry.accuracy, theirs)
    table.add_section()
    correct = sum(entry.correct for entry in score.scores)
    total = sum(entry.total for entry in score.scores)
    add("overall", correct, total, score.overall, reference.overall if reference else 0.0)
    return table
