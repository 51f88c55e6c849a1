"""Settings of admission: who waits for an engine, how long, and what is kept for whom."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings

# Shares that are kept must leave room that anybody may use.
MOST_KEPT = 0.9


class AdmissionSettings(BaseSettings):
    """Mixed into ``Settings``; MAX_QUEUE bounds all classes together."""

    max_queue_interactive: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Of MAX_QUEUE, most requests of class interactive; empty: all of it.",
    )
    max_queue_default: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Of MAX_QUEUE, most requests of class default; empty: all of it.",
    )
    max_queue_batch: int | None = Field(
        None,
        ge=0,
        le=100_000,
        description="Of MAX_QUEUE, most requests of class batch; empty: all of it.",
    )
    queue_timeout_interactive_s: float = Field(
        30.0, gt=0, le=86_400, description="How long a request of class interactive may wait."
    )
    queue_timeout_default_s: float = Field(
        120.0, gt=0, le=86_400, description="How long a request of class default may wait."
    )
    queue_timeout_batch_s: float = Field(
        600.0, gt=0, le=86_400, description="How long a request of class batch may wait."
    )
    queue_promote_s: float = Field(
        15.0,
        ge=0,
        le=86_400,
        description="Wait after which every fourth admission goes to the oldest, whatever its "
        "class.",
    )
    share_interactive: float = Field(
        0.2, ge=0, le=1, description="Of an engine, kept for class interactive while it is in use."
    )
    share_default: float = Field(
        0.1, ge=0, le=1, description="Of an engine, kept for class default while it is in use."
    )
    share_batch: float = Field(
        0.05, ge=0, le=1, description="Of an engine, kept for class batch while it is in use."
    )
    admission_overcommit: float = Field(
        0.125,
        ge=0,
        le=8,
        description="Work handed to an engine beyond its sequences and KV memory, as a share of "
        "them, so that its batch stays full.",
    )

    @field_validator("max_queue_interactive", "max_queue_default", "max_queue_batch", mode="before")
    @classmethod
    def _empty_queue_is_all(cls, value: Any) -> Any:
        return None if value == "" else value

    @model_validator(mode="after")
    def _shares_leave_room(self) -> Self:
        kept = self.share_interactive + self.share_default + self.share_batch
        if kept > MOST_KEPT:
            raise ValueError(
                f"SHARE_INTERACTIVE, SHARE_DEFAULT and SHARE_BATCH add up to {kept:g}; "
                f"keep at most {MOST_KEPT}"
            )
        return self
