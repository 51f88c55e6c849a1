"""Settings of uploaded files and of batches."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings

MIB = 1024 * 1024


class BatchSettings(BaseSettings):
    """Mixed into ``Settings``."""

    files_max_bytes: int = Field(
        512 * MIB, ge=1024, le=1024 * 1024 * MIB, description="Largest uploaded file; more is 413."
    )
    files_max_total_bytes: int = Field(
        10 * 1024 * MIB,
        ge=1024,
        le=1024 * 1024 * MIB,
        description="Size of all files per project, in bytes.",
    )
    batch_max_running: int = Field(
        256,
        ge=1,
        le=10_000,
        description="Lines of batches that run at once; fewer while others are served.",
    )
