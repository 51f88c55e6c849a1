"""``llm-gateway usage``: sums from the ledger, straight from its database."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.terminal import fail

if TYPE_CHECKING:
    from gateway.control.ledger.report import Query, Row

Only = Annotated[str | None, typer.Option(help="Only this one.")]


class Shape(StrEnum):
    """How the answer is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def usage(
    by: Annotated[
        str,
        typer.Option(
            help="Comma-separated: day, key, tenant, organisation, project, model, route."
        ),
    ] = "day",
    first: Annotated[
        str | None, typer.Option("--from", help="First day, YYYY-MM-DD in UTC; 30 days without.")
    ] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last day, included.")] = None,
    key: Only = None,
    organisation: Only = None,
    project: Only = None,
    model: Only = None,
    route: Only = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Show requests, tokens and cost by day, key, tenant, model or route."""
    from gateway.control.ledger.report import QueryError, read_query
    from gateway.control.ledger.store import StoreUnavailable

    if as_json and as_csv:
        fail("--json and --csv cannot be combined")
    only = {
        "key": key,
        "organisation": organisation,
        "project": project,
        "model": model,
        "route": route,
    }
    try:
        query = read_query(by, first, last, only)
        rows = ask(query)
    except QueryError as error:
        fail(f"--{error.field}: {error}")
    except StoreUnavailable as error:
        fail(f"the usage database is not available: {error}")
    shape = Shape.JSON if as_json else Shape.CSV if as_csv else Shape.TABLE
    show(query, rows, shape)


def ask(query: Query) -> list[Row]:
    """The rows, from the database of the settings. Raises StoreUnavailable."""
    from gateway.control.ledger.build import FOLDER, new_store
    from gateway.settings import SettingsError, load_settings

    try:
        settings = load_settings()
    except SettingsError as error:
        fail(f"the settings are not usable:\n{error}")
    store = new_store(settings, settings.data_dir / FOLDER)
    try:
        return store.report(query)
    finally:
        store.close()


def show(query: Query, rows: list[Row], shape: Shape) -> None:
    """Print the answer."""
    from gateway.control.ledger import report

    if shape is Shape.JSON:
        import orjson

        answer = report.as_json(query, rows)
        sys.stdout.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode() + "\n")
    elif shape is Shape.CSV:
        sys.stdout.write(report.as_csv(query, rows))
    else:
        show_table(query, rows)
    if not rows:
        sys.stderr.write(f"nothing was recorded from {query.first} to {query.last}\n")
    if len(rows) > report.MOST_ROWS:
        sys.stderr.write(f"only the first {report.MOST_ROWS} rows are shown; ask for fewer days\n")


def show_table(query: Query, rows: list[Row]) -> None:
    """Print a table for people, with what they look for first."""
    from rich.console import Console
    from rich.table import Table

    from gateway.control.ledger.report import MOST_ROWS

    groups = query.names[: len(query.columns)]
    counts = ("requests", "completed", "prompt_tokens", "cached_tokens", "completion_tokens", "usd")
    table = Table(title=f"{query.first} to {query.last} (UTC)", title_justify="left")
    for name in groups:
        table.add_column(name)
    for name in counts:
        table.add_column(name.replace("_", " "), justify="right")
    for row in rows[:MOST_ROWS]:
        table.add_row(*(str(row[name]) for name in groups), *(cell(row[name]) for name in counts))
    # A pipe has no width of its own, and cut-off numbers are worse than long lines.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    console.print(table)


def cell(value: Any) -> str:
    """A number as people read it."""
    return f"{value:,.4f}" if isinstance(value, float) else f"{value:,}"
