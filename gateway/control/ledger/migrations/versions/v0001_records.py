"""Records of single requests, and their sums by day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

DAY_KEYS = ("day", "key_id", "organisation", "project", "model", "route")
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


def text(name: str, *, null: bool = False) -> sa.Column[str]:
    """A column of text."""
    return sa.Column(name, sa.Text, nullable=null)


def count(name: str) -> sa.Column[int]:
    """A column of whole numbers that grow."""
    return sa.Column(name, sa.BigInteger, nullable=False)


def milliseconds(name: str, *, null: bool = True) -> sa.Column[float]:
    """A column of durations."""
    return sa.Column(name, sa.Double, nullable=null)


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "usage_records",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        text("day"),
        text("source"),
        text("key_id"),
        text("organisation"),
        text("project"),
        text("route"),
        text("model"),
        text("target"),
        text("outcome"),
        sa.Column("status", sa.Integer),
        text("error_code", null=True),
        count("prompt_tokens"),
        count("cached_tokens"),
        count("completion_tokens"),
        count("reasoning_tokens"),
        sa.Column("usd", sa.Double, nullable=False),
        text("priced"),
        milliseconds("queue_ms"),
        milliseconds("engine_queue_ms"),
        milliseconds("ttft_ms"),
        milliseconds("total_ms", null=False),
        text("degraded", null=True),
        sa.Column("stream", sa.Boolean, nullable=False),
        sa.Column("cache_hit", sa.Boolean, nullable=False),
        text("request_id"),
    )
    op.create_index("usage_records_day", "usage_records", ["day"])
    op.create_table(
        "usage_daily",
        *(text(name) for name in DAY_KEYS),
        *(count(name) for name in SUMS),
        sa.Column("usd", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint(*DAY_KEYS),
    )


def downgrade() -> None:
    """Drop both tables, and what they hold."""
    op.drop_table("usage_daily")
    op.drop_table("usage_records")
