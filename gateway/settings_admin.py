"""Settings of the port that is for operators only."""

from __future__ import annotations

from typing import Any

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings


class AdminSettings(BaseSettings):
    """Mixed into ``Settings``."""

    admin_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="Port for the admin API and /metrics, which PORT then does not serve; 0 takes "
        "a free one; empty: they are served on PORT.",
    )
    admin_host: str = Field(
        "127.0.0.1", description="Address that ADMIN_PORT binds; beyond loopback needs a key."
    )
    metrics_need_key: bool = Field(
        True,
        description="Whether /metrics needs a key as everything else does; false for scrapers that "
        "cannot send one, on a network that keeps others away.",
    )

    @field_validator("admin_port", mode="before")
    @classmethod
    def _empty_is_no_admin_port(cls, value: Any) -> Any:
        return None if value == "" else value
