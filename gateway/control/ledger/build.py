"""The ledger that the settings ask for."""

from __future__ import annotations

from pathlib import Path

from gateway.control.ledger.ledger import Ledger
from gateway.control.ledger.sqlite_store import SqliteStore
from gateway.control.ledger.store import Store
from gateway.control.prices import PriceTable
from gateway.settings_ledger import LedgerSettings

FOLDER = "usage"
FILE_NAME = "usage.sqlite3"


def new_ledger(settings: LedgerSettings, data_dir: Path, prices: PriceTable) -> Ledger:
    """A ledger that has not started."""
    return Ledger(
        data_dir / FOLDER,
        lambda folder: new_store(settings, folder),
        prices,
        journal_bytes=settings.usage_journal_max_bytes,
        keep_days=(settings.usage_retention_days, settings.usage_daily_retention_days),
        enabled=settings.usage_ledger,
    )


def new_store(settings: LedgerSettings, folder: Path) -> Store:
    """The database of the settings, or a file in ``folder``. Does not connect yet."""
    if settings.usage_database_url is None:
        return SqliteStore(folder / FILE_NAME)
    from gateway.control.ledger.postgres_store import PostgresStore

    return PostgresStore(settings.usage_database_url.get_secret_value())
