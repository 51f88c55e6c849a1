"""An evaluation for a terminal."""

from __future__ import annotations

from rich.table import Table

from engine.evaluation.result import Evaluation, VariantResult

NONE = "–"
CAPTION = "CPU threads: {threads}; KL in nats per token; ms per generated token of one sequence"


def tables(found: Evaluation) -> list[Table]:
    """One table with every variant, one per skill where tasks have several, and the losses."""
    shown = [overview(found)]
    if any(one.tasks and len(one.tasks.scores) > 1 for one in found.variants):
        shown.append(skills(found))
    if any(found.losses(one) for one in found.variants):
        shown.append(losses(found))
    return shown


def overview(found: Evaluation) -> Table:
    """Size, time and quality per variant."""
    about = "; ".join(part for part in (found.text, found.tasks) if part)
    table = Table(title=f"{found.model}: {about}", caption=CAPTION.format(threads=found.threads))
    table.add_column("variant", no_wrap=True)
    for name in ("MB", "ms/token"):
        table.add_column(name, justify="right")
    with_text = any(one.text for one in found.variants)
    if with_text:
        for name in ("perplexity", "agreement", "KL"):
            table.add_column(name, justify="right")
    if found.tasks:
        table.add_column("accuracy", justify="right")
    for one in found.variants:
        row = [one.name, f"{one.megabytes:,.2f}", f"{one.token_ms:.2f}"]
        if with_text:
            row += text_cells(one)
        if found.tasks:
            row.append(f"{one.tasks.overall:.1%}" if one.tasks else NONE)
        table.add_row(*row)
    return table


def text_cells(one: VariantResult) -> list[str]:
    """Perplexity, agreement and divergence."""
    text = one.text
    if text is None:
        return [NONE] * 3
    return [
        f"{text.perplexity:,.4f}" if text.perplexity < 1000 else f"{text.perplexity:,.0f}",
        NONE if text.agreement is None else f"{text.agreement:.2%}",
        NONE if text.kl is None else f"{text.kl:.6f}",
    ]


def skills(found: Evaluation) -> Table:
    """Accuracy per skill and variant."""
    table = Table(title="Accuracy per skill")
    table.add_column("skill")
    asked = [(one.name, one.tasks.scores) for one in found.variants if one.tasks]
    for name, _ in asked:
        table.add_column(name, justify="right")
    for row in zip(*(scores for _, scores in asked), strict=True):
        table.add_row(row[0].skill, *(f"{cell.correct} / {cell.total}" for cell in row))
    return table


def losses(found: Evaluation) -> Table:
    """What each variant loses to the reference, whole, per megabyte and per millisecond saved."""
    table = Table(title=f"Quality lost to {found.reference}")
    for name in ("variant", "measure"):
        table.add_column(name, no_wrap=True)
    for name in ("lost", "±", "per MB saved", "per ms saved"):
        table.add_column(name, justify="right")
    for one in found.variants:
        for at, loss in enumerate(found.losses(one)):
            table.add_row(
                one.name if at == 0 else "",
                loss.measure,
                f"{loss.amount:+.3g}",
                "" if loss.error is None else f"{loss.error:.2g}",
                NONE if loss.per_mb is None else f"{loss.per_mb:+.3g}",
                NONE if loss.per_ms is None else f"{loss.per_ms:+.3g}",
            )
    return table
