"""Tables of the key store."""

from __future__ import annotations

FILE_NAME = "keys.sqlite"

# Keys are never deleted: a public id stays taken, and the audit log keeps its meaning.
MIGRATIONS = (
    """
    CREATE TABLE keys (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        organisation TEXT NOT NULL,
        project TEXT NOT NULL,
        digest BLOB NOT NULL,
        previous_digest BLOB,
        previous_until REAL,
        rights TEXT NOT NULL,
        parent TEXT REFERENCES keys (id),
        created_at REAL NOT NULL,
        created_by TEXT NOT NULL,
        expires_at REAL,
        rotated_at REAL,
        revoked_at REAL
    );
    CREATE TABLE secrets (
        name TEXT PRIMARY KEY,
        value BLOB NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO secrets VALUES ('cache_salt', randomblob(32));
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        actor TEXT NOT NULL,
        source TEXT,
        request_id TEXT,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        organisation TEXT,
        project TEXT,
        before TEXT,
        after TEXT
    );
    CREATE INDEX audit_by_target ON audit (target, id);
    CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN
        SELECT RAISE(ABORT, 'the audit log is append-only');
    END;
    CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN
        SELECT RAISE(ABORT, 'the audit log is append-only');
    END;
    CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit
    WHEN EXISTS (SELECT 1 FROM audit WHERE id = new.id) BEGIN
        SELECT RAISE(ABORT, 'the audit log is append-only');
    END;
    CREATE TRIGGER keys_no_delete BEFORE DELETE ON keys BEGIN
        SELECT RAISE(ABORT, 'keys are revoked, not deleted');
    END;
    """,
)
