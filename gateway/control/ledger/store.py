"""What the ledger asks of a database, whichever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.control.ledger.report import Query, Row


class StoreUnavailable(Exception):
    """The database does not do what it was asked now. The message says why, without secrets."""


class RecordRefused(Exception):
    """The database will never take one of these records."""


class Store(Protocol):
    """A database of records and of their sums by day. Blocks: call in a thread.

    Every method raises StoreUnavailable.
    """

    def prepare(self) -> None:
        """Connect, and bring the tables to this version."""

    def add(self, payloads: Sequence[bytes]) -> None:
        """Insert records, as JSON, and add them to the sums, in one transaction.

        A record that is there already changes nothing. Raises RecordRefused when one of them
        cannot be inserted; then none has been.
        """

    def purge(self, records_before: str, days_before: str) -> None:
        """Delete records and sums of days before these, YYYY-MM-DD."""

    def report(self, query: Query) -> list[Row]:
        """Sums; may be called from other threads than the rest."""

    def close(self) -> None:
        """Let go of the database."""
