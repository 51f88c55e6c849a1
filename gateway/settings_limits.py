"""Settings of rate limits and budgets, and of the Redis that replicas share them through."""

from __future__ import annotations

import importlib.util
import json
from typing import Annotated, Any

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode

from gateway.control.limits.table import read_table

REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


class LimitSettings(BaseSettings):
    """Mixed into ``Settings``."""

    limits: Annotated[dict[str, Any], NoDecode] = Field(
        {},
        description='Limits beside those of the keys, as JSON: {"models":{"m":{"tokens_per_minute"'
        ':9}},"organisations":{...},"projects":{"org/project":{...}},"keys":{...},'
        '"default_key":{...}}; see docs/limits.md.',
    )
    limits_replicas: int = Field(
        1,
        ge=1,
        le=1000,
        description="Gateways that share the limits at least, for the time before Redis has told.",
    )
    redis_url: SecretStr | None = Field(
        None,
        description="Redis that replicas share their limits through, such as redis://host:6379/0; "
        "empty: each replica has limits of its own.",
    )
    redis_prefix: str = Field(
        "llm-gateway",
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="What the names of our keys in Redis begin with; the same for all replicas.",
    )
    redis_timeout_s: float = Field(
        0.1,
        gt=0,
        le=60,
        description="How long Redis may take to answer before replicas go on without it.",
    )

    @field_validator("limits", mode="before")
    @classmethod
    def _parse_limits(cls, value: Any) -> Any:
        if isinstance(value, str):
            if not value.strip():
                return {}
            try:
                value = json.loads(value)
            except ValueError as error:
                raise ValueError(f"not JSON: {error}") from None
        read_table(value)
        return value

    @field_validator("redis_url", mode="before")
    @classmethod
    def _check_redis(cls, value: Any) -> Any:
        if value == "" or value is None:
            return None
        url = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        if not url.startswith(REDIS_SCHEMES):
            raise ValueError("a URL is needed that begins with redis://, rediss:// or unix://")
        if importlib.util.find_spec("redis") is None:
            raise ValueError("the redis package is missing: pip install 'llm-gateway[redis]'")
        return value
