"""Stored keys without a server: their text, the store, the snapshot, and who notices what."""

import hmac
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from keys_help import OPERATOR, command, failure
from typer.testing import CliRunner

from gateway.cli import app
from gateway.control.auth import ANONYMOUS, Keyring, salt_for
from gateway.control.fallback import FallbackPolicy
from gateway.control.identity import snapshot
from gateway.control.identity.audit import Actor
from gateway.control.identity.manage import KeyAdmin
from gateway.control.identity.secrets import new_key_id, new_secret, read_key_id, split_key
from gateway.control.identity.store import KeyStore, KeyStoreUnavailable
from gateway.control.identity.watch import POLL_S, KeyWatch
from gateway.control.rights import Tenant
from gateway.errors import Conflict, InvalidApiKey, InvalidRequest, NotPermitted, StorageUnavailable
from gateway.settings import SettingsError, load_settings

ENV_KEY = "planted-secret-key-number-one"


class House:
    """A store, and a keyring that knows it."""

    def __init__(self, folder: Path, *env_keys: str) -> None:
        self.store = KeyStore(folder)
        self.admin = KeyAdmin(KeyStore(folder))
        self.keyring = Keyring(env_keys)
        self.watch = KeyWatch(self.store, self.keyring.publish)
        self.watch.look()

    def make(self, actor: Actor = OPERATOR, **asked: Any) -> tuple[str, str]:
        key, secret = self.admin.create(actor, asked)
        self.watch.look()
        return key.id, secret.text

    def identify(self, key: str) -> Any:
        return self.keyring.identify({b"authorization": f"Bearer {key}".encode()})


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "data")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the time that keys go by."""
    began = time.time()
    now = began

    def advance(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(time, "time", lambda: now)
    return advance


def test_a_key_is_its_public_id_and_a_secret() -> None:
    key_id = new_key_id()
    secret = new_secret(key_id)
    assert split_key(secret.text.encode()) == (key_id, secret.digest)
    assert secret.text not in repr(secret)
    assert len({new_secret(key_id).text for _ in range(50)}) == 50
    for wrong in (
        "",
        secret.text[:-1],
        secret.text + "x",
        "lgw_" + key_id,
        secret.text[1:],
        "lgw__",
    ):
        assert split_key(wrong.encode()) is None
    digits = key_id.removeprefix("key_")
    assert read_key_id(key_id) == read_key_id(digits) == read_key_id(f"lgw_{digits}") == key_id
    assert read_key_id(secret.text) is None


def test_only_digests_are_stored(house: House, tmp_path: Path) -> None:
    key_id, text = house.make(name="x")
    secret = text.rpartition("_")[2].encode()
    for file in (tmp_path / "data").iterdir():
        assert secret not in file.read_bytes()
        assert oct(file.stat().st_mode & 0o777) == "0o600"
    assert oct((tmp_path / "data").stat().st_mode & 0o777) == "0o700"
    assert secret.decode() not in repr(house.keyring.stored)
    assert repr(house.keyring.stored.entries[key_id].key.digest) not in repr(house.keyring.stored)


def test_without_keys_everybody_is_anonymous_and_never_again_after(house: House) -> None:
    assert house.keyring.open
    assert house.keyring.identify({}) is ANONYMOUS
    key_id, text = house.make()
    assert not house.keyring.open
    assert house.identify(text).id == key_id
    with pytest.raises(InvalidApiKey):
        house.keyring.identify({})
    assert house.keyring.find(ANONYMOUS.id) is None
    house.admin.revoke(OPERATOR, key_id)
    house.watch.look()
    assert not house.keyring.open
    with pytest.raises(InvalidApiKey):
        house.keyring.identify({})


def test_keys_of_the_environment_and_stored_ones_work_side_by_side(tmp_path: Path) -> None:
    house = House(tmp_path, ENV_KEY)
    key_id, text = house.make()
    from_environment = house.identify(ENV_KEY)
    assert house.identify(text).id == key_id
    assert from_environment.owner == from_environment.id
    for wrong in (
        text[:-1] + ("a" if text[-1] != "a" else "b"),
        ENV_KEY + "x",
        f"lgw_{'0' * 12}_x",
    ):
        with pytest.raises(InvalidApiKey, match="Incorrect API key"):
            house.identify(wrong)
    allowed = FallbackPolicy.parse(f"key:{key_id}")
    assert allowed.allows(["m"], house.identify(text).id)
    assert not allowed.allows(["m"], from_environment.id)


def test_an_unknown_id_costs_what_a_wrong_secret_costs(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = house.make()
    compared = []
    original = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return original(one, other)

    monkeypatch.setattr(snapshot.hmac, "compare_digest", compare)
    house.identify(text)
    for wrong in (new_secret(new_key_id()).text, text[:17] + new_secret("key_0").text[-43:]):
        with pytest.raises(InvalidApiKey):
            house.identify(wrong)
    assert compared == [(32, 32)] * 6


def test_expiry_is_looked_at_on_every_use(house: House, clock: Callable[[float], None]) -> None:
    key_id, text = house.make(expires_in_s=60)
    clock(59)
    who = house.identify(text)
    clock(2)
    with pytest.raises(InvalidApiKey, match="expired"):
        house.identify(text)
    assert house.keyring.find(key_id) is None
    with pytest.raises(InvalidApiKey):
        house.keyring.renew(who)
    later = int(time.time()) + 60
    house.admin.update(OPERATOR, key_id, {"expires_at": later})
    house.watch.look()
    assert house.identify(text).id == key_id
    with pytest.raises(InvalidRequest, match="past"):
        house.admin.update(OPERATOR, key_id, {"expires_at": later - 120})


def test_a_rotated_key_has_two_secrets_for_a_while(
    house: House, clock: Callable[[float], None]
) -> None:
    key_id, first = house.make()
    second = house.admin.rotate(OPERATOR, key_id, {"grace_s": 100})[1].text
    house.watch.look()
    assert house.identify(first) == house.identify(second)
    with pytest.raises(Conflict, match="grace of 0"):
        house.admin.rotate(OPERATOR, key_id, {"grace_s": 100})
    clock(101)
    with pytest.raises(InvalidApiKey, match="rotated"):
        house.identify(first)
    third = house.admin.rotate(OPERATOR, key_id, {"grace_s": 100})[1].text
    fourth = house.admin.rotate(OPERATOR, key_id, {"grace_s": 0})[1].text
    house.watch.look()
    for ended in (first, second, third):
        with pytest.raises(InvalidApiKey):
            house.identify(ended)
    assert house.identify(fourth).id == key_id


def test_a_revoked_key_is_gone_for_good(house: House) -> None:
    key_id, text = house.make()
    house.admin.rotate(OPERATOR, key_id, {})
    house.admin.revoke(OPERATOR, key_id)
    house.watch.look()
    with pytest.raises(InvalidApiKey):
        house.identify(text)
    for change in (
        lambda: house.admin.rotate(OPERATOR, key_id, {}),
        lambda: house.admin.update(OPERATOR, key_id, {"name": "x"}),
    ):
        with pytest.raises(Conflict, match="revoked"):
            change()
    assert house.admin.revoke(OPERATOR, key_id).revoked_at is not None


def test_a_key_never_outgrows_the_one_that_made_it(house: House) -> None:
    parent_id, _ = house.make(rights={"admin": True, "manages": "server", "models": ["a", "b"]})
    parent = Actor(parent_id, is_stored=True)
    child_id, child = house.make(parent, rights={"models": ["a", "b"], "admin": True})
    assert house.identify(child).rights.models == {"a", "b"}
    with pytest.raises(NotPermitted, match=r"rights\.models"):
        house.make(parent, rights={"models": ["c"]})
    house.admin.update(OPERATOR, parent_id, {"rights": {"models": ["b", "c"], "admin": False}})
    house.watch.look()
    narrowed = house.identify(child).rights
    assert narrowed.models == {"b"}
    assert not narrowed.admin
    with pytest.raises(InvalidRequest, match=f"made by {parent_id}"):
        house.admin.update(OPERATOR, child_id, {"rights": {"models": ["c", "d"]}})
    # The snapshot may be late; what may be handed out is read where it is written.
    with pytest.raises(NotPermitted, match="admin key"):
        house.admin.create(parent, {})
    house.admin.revoke(OPERATOR, parent_id)
    with pytest.raises(InvalidApiKey):
        house.admin.create(parent, {})


def test_a_project_shares_its_objects_and_its_cache(house: House) -> None:
    one, two, other = (
        house.identify(house.make(organisation="acme", project=project)[1])
        for project in ("web", "web", "app")
    )
    assert one.owner == two.owner == "acme/web" != other.owner
    assert one.tenant == Tenant("acme", "web")
    assert salt_for(one, None) == salt_for(two, None) != salt_for(other, None)
    assert salt_for(one, "x") == salt_for(two, "x") != salt_for(other, "x")
    assert salt_for(one, None) is not None


async def test_changes_of_others_are_noticed_in_a_thread_of_its_own(house: House) -> None:
    noticed = threading.Event()
    watch = KeyWatch(house.store, lambda taken: noticed.set() if taken.entries else None)
    watch.start()
    try:
        house.admin.create(OPERATOR, {})
        assert noticed.wait(30)
    finally:
        await watch.close()
    assert POLL_S < 1


def test_nothing_is_read_again_while_nothing_changes(house: House) -> None:
    house.make()
    before = house.keyring.stored
    house.watch.look()
    assert house.keyring.stored is before
    key_id, _ = house.make()
    after = house.keyring.stored
    assert {
        name for name in after.entries if after.entries[name] is not before.entries.get(name)
    } == {key_id}


def test_serving_goes_on_without_the_store(house: House, tmp_path: Path) -> None:
    key_id, text = house.make()
    aside = tmp_path / "aside"
    house.store.path.rename(aside)
    house.watch.look()
    assert house.identify(text).id == key_id
    with pytest.raises(KeyStoreUnavailable), house.store.change():
        pass
    assert not house.store.path.exists()
    house.store.path.write_bytes(b"not a database" * 100)
    house.watch.look()
    assert house.identify(text).id == key_id
    os.replace(aside, house.store.path)
    house.admin.revoke(OPERATOR, key_id)
    house.watch.look()
    with pytest.raises(InvalidApiKey):
        house.identify(text)


def test_an_existing_file_is_opened_by_sqlite_only(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Closing it would take the locks of the watching connection away.
    house.make()
    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("the file was opened"))
    key_id, text = house.make()
    assert house.identify(text).id == key_id


def test_what_cannot_be_read_lets_nobody_in(tmp_path: Path) -> None:
    _, text = House(tmp_path).make()
    path = KeyStore(tmp_path).path
    kept = path.read_bytes()
    path.write_bytes(b"not a database" * 100)
    house = House(tmp_path)
    assert not house.keyring.open
    with pytest.raises(StorageUnavailable):
        house.identify(text)
    with pytest.raises(InvalidApiKey):
        house.keyring.identify({})
    assert "cannot be used" in failure(tmp_path, "list")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(_env_file=None, host="0.0.0.0", data_dir=tmp_path)
    path.write_bytes(kept)
    house.watch.look()
    assert house.identify(text)


def test_beyond_loopback_a_stored_key_will_do(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="llm-gateway keys create"):
        load_settings(_env_file=None, host="0.0.0.0", data_dir=tmp_path)
    command(tmp_path, "create")
    assert load_settings(_env_file=None, host="0.0.0.0", data_dir=tmp_path).host == "0.0.0.0"


def test_a_newer_file_is_left_alone(house: House) -> None:
    house.make()
    with sqlite3.connect(house.store.path) as db:
        db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(KeyStoreUnavailable) as caught, house.store.change():
        pass
    assert "newer llm-gateway" in caught.value.cause
    assert "newer" not in str(caught.value)


def test_the_command_line_makes_shows_and_ends_keys(tmp_path: Path) -> None:
    assert command(tmp_path, "list") == []
    assert not list(tmp_path.iterdir())
    made = command(
        *(tmp_path, "create", "--name", "laptop", "--organisation", "acme", "--project", "web"),
        *("--model", "a", "--model", "b", "--endpoint", "chat", "--class", "default"),
        *(
            "--source",
            "10.0.0.0/8",
            "--limit",
            "requests_per_minute=60",
            "--limit",
            "usd_per_day=1.5",
        ),
        *("--expires", "30d", "--weight", "0.5", "--admin", "project"),
    )
    assert made["key"].startswith("lgw_" + made["id"].removeprefix("key_"))
    assert made["expires_at"] - made["created_at"] == 30 * 86_400
    assert made["rights"] == {
        "models": ["a", "b"],
        "endpoints": ["chat"],
        "highest_class": "default",
        "limits": {"requests_per_minute": 60, "usd_per_day": 1.5},
        "sources": ["10.0.0.0/8"],
        "admin": True,
        "manages": "project",
        "weight": 0.5,
    }
    shown = command(tmp_path, "show", made["id"])
    assert shown == {name: value for name, value in made.items() if name != "key"}
    rotated = command(tmp_path, "rotate", made["id"], "--grace", "2h")
    assert rotated["key"] != made["key"]
    assert rotated["previous_secret_until"] - rotated["rotated_at"] == 7200
    changed = command(
        *(tmp_path, "update", made["id"], "--endpoint", "none", "--expires", "never"),
        *("--rights", '{"models": null}'),
    )
    assert changed["rights"]["endpoints"] == []
    assert changed["rights"]["models"] is changed["expires_at"] is None
    assert changed["rights"]["weight"] == 0.5
    assert command(tmp_path, "update", made["id"], "--expires", "1d")["expires_at"] is not None
    assert command(tmp_path, "revoke", made["id"])["status"] == "revoked"
    assert [key["id"] for key in command(tmp_path, "list", "--organisation", "acme")] == [
        made["id"]
    ]
    assert command(tmp_path, "list", "--organisation", "other") == []
    assert len(command(tmp_path, "audit")) == 5


def test_tables_never_show_a_secret_twice(tmp_path: Path) -> None:
    where = ["--data-dir", str(tmp_path)]
    runner = CliRunner(env={"COLUMNS": "240"})
    made = runner.invoke(app, ["keys", "create", "--name", "[bold]x", *where]).output
    key = next(line for line in made.splitlines() if line.startswith("lgw_"))
    key_id = "key_" + key.split("_")[1]
    assert made.count(key) == 1
    for arguments in (["list"], ["show", key_id], ["audit"], ["revoke", key_id], ["list"]):
        shown = runner.invoke(app, ["keys", *arguments, *where])
        assert shown.exit_code == 0, shown.output
        assert key_id in shown.output
        assert key.rpartition("_")[2] not in shown.output
    assert "[bold]x" in shown.output
    assert "revoked" in shown.output


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["show", "key_000000000000"], "There is no key with id 'key_000000000000'"),
        (["show", f"lgw_{'0' * 12}_{'s' * 43}"], "ids begin with key_"),
        (["create", "--class", "gold"], "'interactive', 'default', 'batch'"),
        (["create", "--limit", "rpm=1"], "rights.limits.rpm"),
        (["create", "--limit", "requests_per_day"], "requests_per_minute=60"),
        (["create", "--expires", "soon"], "such as 30d"),
        (["create", "--expires", "2001-01-01"], "in the past"),
        (["create", "--organisation", "a/b"], "organisation"),
        (["rotate", "key_000000000000", "--grace", "1y"], "such as 30m"),
        (["update", "key_000000000000", "--rights", "[1]"], "JSON object"),
    ],
)
def test_the_command_line_explains_what_is_wrong(
    tmp_path: Path, arguments: list[str], expected: str
) -> None:
    said = " ".join(failure(tmp_path, *arguments).split())
    assert expected in said
    assert "s" * 43 not in said


def test_a_folder_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be used" in failure(tmp_path / "file", "create")


@pytest.mark.parametrize("name", ["create", "list", "show", "update", "rotate", "revoke", "audit"])
def test_every_command_has_help_with_an_example(name: str) -> None:
    shown = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["keys", name, "--help"])
    assert shown.exit_code == 0
    assert f"llm-gateway keys {name}" in shown.output
