"""Settings of accounting: the ledger of requests, prices, and the cache of answers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from gateway.control.prices import load_prices
from gateway.control.response_cache.wish import Policy

MIB = 1024 * 1024
POSTGRES_SCHEMES = frozenset({"postgresql", "postgres", "postgresql+psycopg"})


class LedgerSettings(BaseSettings):
    """Mixed into ``Settings``."""

    usage_ledger: bool = Field(True, description="Keep a record of every request.")
    usage_database_url: SecretStr | None = Field(
        None,
        description="PostgreSQL that takes the records, postgresql://user:password@host/database; "
        "empty: SQLite in DATA_DIR.",
    )
    usage_journal_max_bytes: int = Field(
        256 * MIB,
        ge=4 * MIB,
        le=1024 * 1024 * MIB,
        description="Records kept in DATA_DIR while the database is away; beyond, the oldest go.",
    )
    usage_retention_days: int = Field(
        90, ge=1, le=36_500, description="How long the record of a single request is kept."
    )
    usage_daily_retention_days: int = Field(
        1100, ge=1, le=36_500, description="How long the sums of a day are kept."
    )
    prices_file: Path | None = Field(
        None, description="YAML or JSON with dated prices per million tokens; empty: all is free."
    )
    response_cache: str = Field(
        "ask",
        max_length=4096,
        description="Cache of whole answers: off; ask, where a request has x-gateway-cache: on; "
        "auto, also for every repeatable request; or for whose: a comma-separated list of "
        "model:NAME and key:ID.",
    )
    response_cache_max_bytes: int = Field(
        64 * MIB, ge=MIB, le=1024 * 1024 * MIB, description="Memory for cached answers."
    )
    response_cache_max_entries: int = Field(
        10_000, ge=1, le=10_000_000, description="Most cached answers."
    )
    response_cache_max_age_s: float = Field(
        3600.0, gt=0, le=3650 * 86_400, description="How long a cached answer may be given."
    )

    @field_validator("usage_database_url", "prices_file", mode="before")
    @classmethod
    def _no_database_or_prices(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("usage_database_url")
    @classmethod
    def _check_usage_database(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        url = value.get_secret_value()
        if url.partition("://")[0] not in POSTGRES_SCHEMES:
            raise ValueError("it must begin with postgresql://")
        if missing := [
            name for name in ("sqlalchemy", "alembic", "psycopg") if not find_spec(name)
        ]:
            raise ValueError(
                f"it needs {', '.join(missing)}: pip install 'llm-gateway[postgres]', or leave it "
                "empty for SQLite"
            )
        from sqlalchemy import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            make_url(url)
        except (ArgumentError, ValueError):
            raise ValueError(
                "it is not a URL; write special characters of the password as %40 for @, %2F for /"
            ) from None
        return value

    @field_validator("prices_file")
    @classmethod
    def _check_prices_file(cls, value: Path | None) -> Path | None:
        path = value.expanduser() if value is not None else None
        load_prices(path)
        return path

    @field_validator("response_cache")
    @classmethod
    def _check_response_cache(cls, value: str) -> str:
        Policy.parse(value)
        return value
