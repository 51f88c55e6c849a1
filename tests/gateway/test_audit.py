"""The audit log: every change is in it, and nothing takes it out again."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from keys_help import ADMIN_KEY, OPERATOR, http, key_server
from server_process import NewServer

from gateway.control.auth import Keyring
from gateway.control.identity.manage import KeyAdmin
from gateway.control.identity.store import KeyStore
from gateway.errors import NotPermitted


@pytest.fixture
def keys(tmp_path: Path) -> KeyAdmin:
    return KeyAdmin(KeyStore(tmp_path))


def test_every_change_says_who_what_before_and_after(keys: KeyAdmin) -> None:
    key = keys.create(OPERATOR, {"name": "one", "organisation": "acme"})[0]
    keys.update(OPERATOR, key.id, {"name": "two"})
    keys.rotate(OPERATOR, key.id, {})
    keys.revoke(OPERATOR, key.id)
    keys.revoke(OPERATOR, key.id)
    keys.note(OPERATOR, "config.reload", "gateway.yaml", {"hash": "a"}, {"hash": "b"})
    entries, more = keys.audit_page(OPERATOR)
    assert not more
    entries.reverse()
    assert [entry["action"] for entry in entries] == [
        "key.create",
        "key.update",
        "key.rotate",
        "key.revoke",
        "config.reload",
    ]
    assert {entry["actor"] for entry in entries} == {OPERATOR.id}
    assert entries[0]["before"] is None
    assert entries[0]["after"]["name"] == entries[1]["before"]["name"] == "one"
    assert entries[1]["after"]["name"] == "two"
    assert entries[2]["before"]["rotated_at"] is None
    assert entries[2]["after"]["rotated_at"] is not None
    assert entries[3]["after"]["status"] == "revoked"
    assert entries[0]["organisation"] == "acme"
    assert entries[4]["organisation"] is None
    of_the_key, _ = keys.audit_page(OPERATOR, target=key.id)
    assert len(of_the_key) == 4
    first, more = keys.audit_page(OPERATOR, limit=2)
    assert more
    rest, _ = keys.audit_page(OPERATOR, after=first[-1]["id"])
    assert [*first, *rest] == entries[::-1]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit SET actor = 'nobody'",
        "DELETE FROM audit",
        "DELETE FROM audit WHERE id = 1",
        "INSERT OR REPLACE INTO audit (id, at, actor, action, target) VALUES (1, 0, 'x', 'y', 'z')",
        "DELETE FROM keys",
    ],
)
def test_entries_cannot_be_changed_or_removed(keys: KeyAdmin, statement: str) -> None:
    keys.create(OPERATOR, {})
    before = keys.audit_page(OPERATOR)
    with (
        closing(sqlite3.connect(keys.store.path)) as db,
        pytest.raises(sqlite3.IntegrityError, match=r"append-only|not deleted"),
    ):
        db.execute(statement)
    assert keys.audit_page(OPERATOR) == before


def test_what_was_refused_leaves_no_trace(keys: KeyAdmin) -> None:
    key = keys.create(OPERATOR, {})[0]
    stored = len(keys.audit_page(OPERATOR)[0])
    from gateway.control.identity.audit import Actor

    with pytest.raises(NotPermitted):
        keys.create(Actor(key.id, is_stored=True), {})
    assert len(keys.audit_page(OPERATOR)[0]) == stored
    assert len(keys.page(OPERATOR)[0]) == 1


def test_a_change_over_the_api_is_told_from_others(shared_server: NewServer) -> None:
    server = key_server(shared_server)
    with http(
        server, ADMIN_KEY, **{"x-forwarded-for": "198.51.100.7", "x-request-id": "r-1"}
    ) as admin:
        made = admin.post("/admin/keys", json={}).json()
        entries = admin.get("/admin/audit", params={"target": made["id"]}).json()["data"]
    assert len(entries) == 1
    entry = entries[0]
    who = Keyring((), [ADMIN_KEY]).identify({b"x-api-key": ADMIN_KEY.encode()})
    assert entry["actor"] == made["created_by"] == who.id
    assert entry["source"] == "198.51.100.7"
    assert entry["request_id"] == "r-1"
    assert entry["after"]["rights"] == made["rights"]
