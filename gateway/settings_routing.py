"""Settings of routing; most of it stands in the file that CONFIG_FILE names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings


class RoutingSettings(BaseSettings):
    """Mixed into ``Settings``."""

    config_file: Path | None = Field(
        None,
        description="gateway.yaml with models, targets and routes; takes the place of MODEL_NAME.",
    )
    routing_policy: Literal["least_tokens", "two_choices", "weighted", "session", "prefix"] = Field(
        "least_tokens",
        description="How a replica is chosen where gateway.yaml does not say: least_tokens, "
        "two_choices, weighted, session or prefix.",
    )

    @field_validator("config_file", mode="before")
    @classmethod
    def _no_file(cls, value: Any) -> Any:
        return None if value == "" else value
