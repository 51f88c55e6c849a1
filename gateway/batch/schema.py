"""The tables of files and batches. A script, once released, never changes."""

from __future__ import annotations

FILE_NAME = "batches.sqlite3"

MIGRATIONS = (
    """
    CREATE TABLE files (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        purpose TEXT NOT NULL,
        filename TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER
    );
    CREATE INDEX files_by_owner ON files (owner, position);
    CREATE INDEX files_by_expiry ON files (expires_at);
    CREATE TABLE batches (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        owner TEXT NOT NULL,
        status TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        input_file_id TEXT NOT NULL,
        input_bytes INTEGER NOT NULL,
        completion_window TEXT NOT NULL,
        metadata TEXT,
        output_lifetime_s INTEGER NOT NULL,
        model TEXT,
        errors TEXT,
        output_file_id TEXT,
        error_file_id TEXT,
        created_at INTEGER NOT NULL,
        in_progress_at INTEGER,
        expires_at INTEGER NOT NULL,
        finalizing_at INTEGER,
        completed_at INTEGER,
        failed_at INTEGER,
        expired_at INTEGER,
        cancelling_at INTEGER,
        cancelled_at INTEGER,
        total INTEGER NOT NULL DEFAULT 0,
        completed INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        input_tokens INTEGER NOT NULL DEFAULT 0,
        cached_tokens INTEGER NOT NULL DEFAULT 0,
        output_tokens INTEGER NOT NULL DEFAULT 0,
        reasoning_tokens INTEGER NOT NULL DEFAULT 0
    );
    CREATE INDEX batches_by_owner ON batches (owner, position);
    CREATE INDEX batches_by_status ON batches (status);
    CREATE TABLE results (
        batch INTEGER NOT NULL REFERENCES batches (position) ON DELETE CASCADE,
        line INTEGER NOT NULL,
        ok INTEGER NOT NULL,
        body BLOB NOT NULL,
        PRIMARY KEY (batch, line)
    );
    CREATE TABLE attempts (
        batch INTEGER NOT NULL REFERENCES batches (position) ON DELETE CASCADE,
        line INTEGER NOT NULL,
        begun INTEGER NOT NULL,
        PRIMARY KEY (batch, line)
    ) WITHOUT ROWID;
    """,
    # Objects belong to a project; what a batch may do goes by the key that made it.
    """
    ALTER TABLE batches ADD COLUMN key TEXT NOT NULL DEFAULT '';
    UPDATE batches SET key = owner;
    """,
)
