"""Tables and longer statements of the store of responses."""

from __future__ import annotations

MIGRATIONS = (
    """
    CREATE TABLE responses (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        used REAL NOT NULL,
        status TEXT NOT NULL,
        owner TEXT NOT NULL,
        previous TEXT,
        size INTEGER NOT NULL,
        body BLOB NOT NULL,
        input BLOB NOT NULL,
        events BLOB
    ) WITHOUT ROWID;
    CREATE INDEX responses_by_tenant ON responses (tenant, used);
    CREATE INDEX responses_by_use ON responses (used);
    CREATE INDEX responses_running ON responses (status) WHERE status IN ('queued', 'in_progress');
    CREATE TABLE items (
        tenant TEXT NOT NULL,
        item TEXT NOT NULL,
        response TEXT NOT NULL REFERENCES responses (id) ON DELETE CASCADE,
        PRIMARY KEY (tenant, item, response)
    ) WITHOUT ROWID;
    CREATE INDEX items_by_response ON items (response);
    CREATE TABLE tenants (
        tenant TEXT PRIMARY KEY,
        count INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TRIGGER count_insert AFTER INSERT ON responses BEGIN
        INSERT INTO tenants VALUES (new.tenant, 1, new.size)
            ON CONFLICT (tenant) DO UPDATE SET count = count + 1, bytes = bytes + new.size;
    END;
    CREATE TRIGGER count_delete AFTER DELETE ON responses BEGIN
        UPDATE tenants SET count = count - 1, bytes = bytes - old.size WHERE tenant = old.tenant;
        DELETE FROM tenants WHERE tenant = old.tenant AND count = 0;
    END;
    CREATE TRIGGER count_update AFTER UPDATE OF size ON responses BEGIN
        UPDATE tenants SET bytes = bytes - old.size + new.size WHERE tenant = new.tenant;
    END;
    """,
)

DROP_OLDEST = """
    DELETE FROM responses WHERE id = (
        SELECT id FROM responses WHERE id != ? AND status NOT IN ('queued', 'in_progress')
        ORDER BY used LIMIT 1
    )"""
DROP_OLDEST_OF_TENANT = """
    DELETE FROM responses WHERE id = (
        SELECT id FROM responses WHERE id != ? AND status NOT IN ('queued', 'in_progress')
        AND tenant = ? ORDER BY used LIMIT 1
    )"""
