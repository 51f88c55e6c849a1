"""Questions to the ledger, and their answers as SQL, JSON, CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

Row = dict[str, Any]

# What sums can be asked by: the name in requests, and the column.
GROUPS = {
    "day": ("day",),
    "key": ("key_id",),
    "tenant": ("organisation", "project"),
    "organisation": ("organisation",),
    "project": ("project",),
    "model": ("model",),
    "route": ("route",),
}
FILTERS = ("key", "organisation", "project", "model", "route")
SUMS = (
    "requests",
    "completed",
    "cancelled",
    "failed",
    "rejected",
    "shed",
    "cache_hits",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "reasoning_tokens",
)
MONEY = "usd"
MOST_ROWS = 10_000
DEFAULT_DAYS = 30


class QueryError(ValueError):
    """A question that cannot be answered. The message says why.

    Attributes:
        field: at fault: by, from, to.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True, slots=True)
class Query:
    """Sums of the days ``first`` to ``last``, both included, in UTC, as YYYY-MM-DD.

    Attributes:
        by: names of GROUPS; none gives one row.
        only: values that names of FILTERS must have.
    """

    first: str
    last: str
    by: tuple[str, ...] = ()
    only: tuple[tuple[str, str], ...] = ()

    @property
    def columns(self) -> list[str]:
        """The columns that tell rows apart."""
        return list(dict.fromkeys(column for name in self.by for column in GROUPS[name]))

    @property
    def names(self) -> list[str]:
        """The names in a row of the answer, in order."""
        return ["key" if name == "key_id" else name for name in (*self.columns, *SUMS, MONEY)]


def read_query(
    by: str, first: str | None, last: str | None, only: dict[str, str | None] | None = None
) -> Query:
    """A question from what people write; without days, the last DEFAULT_DAYS.

    Raises QueryError.
    """
    names = tuple(dict.fromkeys(part.strip() for part in by.split(",") if part.strip()))
    for name in names:
        if name not in GROUPS:
            known = ", ".join(GROUPS)
            raise QueryError("by", f"'{name[:64]}' is unknown; there are {known}")
    end = read_day("to", last) or datetime.now(UTC).date()
    begin = read_day("from", first) or end - timedelta(days=DEFAULT_DAYS - 1)
    if begin > end:
        raise QueryError("from", f"{begin} is after {end}, the last day")
    wanted = tuple((name, value) for name, value in (only or {}).items() if value is not None)
    return Query(begin.isoformat(), end.isoformat(), names, wanted)


def read_day(field: str, text: str | None) -> date | None:
    """A day written as YYYY-MM-DD. Raises QueryError."""
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise QueryError(field, "it must be a day as YYYY-MM-DD") from None


def as_json(query: Query, rows: list[Row]) -> dict[str, Any]:
    """Rows with what they are the answer to."""
    return {
        "object": "usage",
        "from": query.first,
        "to": query.last,
        "by": list(query.by),
        "truncated": len(rows) > MOST_ROWS,
        "data": rows[:MOST_ROWS],
    }


def statement(query: Query) -> tuple[str, dict[str, str | int]]:
    """The question in SQL that SQLite and PostgreSQL share, with its values."""
    columns = query.columns
    # All names come from the tables above, and all values go beside the text.
    shown = [*columns, *(f"CAST(coalesce(sum({name}), 0) AS bigint) AS {name}" for name in SUMS)]
    shown.append(f"CAST(coalesce(sum({MONEY}), 0) AS double precision) AS {MONEY}")
    conditions = ["day >= :first", "day <= :last"]
    values: dict[str, str | int] = {"first": query.first, "last": query.last, "most": MOST_ROWS + 1}
    for name, value in query.only:
        column = GROUPS[name][0]
        conditions.append(f"{column} = :only_{column}")
        values[f"only_{column}"] = value
    text = f"SELECT {', '.join(shown)} FROM usage_daily WHERE {' AND '.join(conditions)}"  # noqa: S608
    if columns:
        text += f" GROUP BY {', '.join(columns)} ORDER BY {', '.join(columns)}"
    return text + " LIMIT :most", values


def named(query: Query, rows: Iterable[Sequence[Any]]) -> list[Row]:
    """Rows of ``statement`` with their names; the key is called ``key``."""
    return [dict(zip(query.names, row, strict=True)) for row in rows]


def as_csv(query: Query, rows: list[Row]) -> str:
    """Rows with a header, in the format of RFC 4180."""
    text = io.StringIO()
    writer = csv.DictWriter(text, query.names)
    writer.writeheader()
    for row in rows[:MOST_ROWS]:
        writer.writerow({name: harmless(value) for name, value in row.items()})
    return text.getvalue()


def harmless(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value
