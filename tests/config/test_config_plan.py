"""Reading, comparing and planning, without a server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config.flat import MASK, digest_of, shown
from gateway.config.plan import plan
from gateway.config.show import entries
from gateway.config.snapshot import ConfigInvalid, Snapshot, read_snapshot
from gateway.config.takes import RELOADABLE, ROUTED, takes
from gateway.settings import Settings

KEY = "a-planted-key-for-the-tests"
SECRET = "a-planted-secret-for-the-tests"
REMOTE = """models:
- name: m
  targets:
  - {base_url: "http://127.0.0.1:9/v1", api_key: "${UPSTREAM}", headers: {x-key: "${UPSTREAM}"}}
"""


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what a test sets counts."""
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.setenv("UPSTREAM", SECRET)
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


def read(text: str = "", **given: object) -> Snapshot:
    Path(".env").write_text(text)
    return read_snapshot(given)


def test_every_listed_setting_exists() -> None:
    assert set(Settings.model_fields) >= RELOADABLE | ROUTED
    assert not RELOADABLE & ROUTED
    for name in ("host", "port", "data_dir", "engine", "max_num_seqs", "max_queue", "redis_url"):
        assert not takes(name, engines_stay=True)


def test_the_first_source_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Max_Queue", "7")
    snapshot = read("MAX_QUEUE=6\nsse_ping_s=3\nPORT=1", port=0)
    found = {entry.name: (entry.value, entry.source) for entry in entries(snapshot)}
    assert found["MAX_QUEUE"] == (7, "environment")
    assert found["SSE_PING_S"] == (3.0, ".env")
    assert found["PORT"] == (0, "command line")
    assert found["HOST"] == ("127.0.0.1", "default")


def test_no_secret_is_shown_and_none_is_in_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("gateway.yaml").write_text(REMOTE)
    text = 'CONFIG_FILE=gateway.yaml\nADMIN_KEYS={}\nENGINE_ARGS={{"hf_token": "{}", "seed": 1}}\n'
    snapshot = read(text.format(KEY, SECRET))
    sources = {entry.name: entry.source for entry in entries(snapshot)}
    assert sources["models.m.targets.openai.api_key"] == "gateway.yaml"
    assert sources["models.m.targets.openai.weight"] == "default"
    cards = str([entry.card() for entry in entries(snapshot)])
    assert KEY not in cards
    assert SECRET not in cards
    assert shown(snapshot.settings.engine_args) == {"hf_token": MASK, "seed": 1}

    monkeypatch.setenv("UPSTREAM", "another-secret-of-the-tests")
    other = read(text.format(KEY + "2", SECRET))
    assert other.digest == snapshot.digest
    found = plan(snapshot, other)
    assert {change.name for change in found.applied} == {
        "ADMIN_KEYS",
        "models.m.targets.openai.api_key",
        "models.m.targets.openai.headers",
    }
    changes = str([change.card() for change in found.applied])
    assert KEY not in changes
    assert SECRET not in changes


def test_the_hash_changes_with_every_value() -> None:
    flat = read("").flat()
    hashes = {digest_of({**flat, name: "another"}) for name in flat}
    assert len(hashes) == len(flat)
    assert digest_of(flat) not in hashes
    assert read("").digest == read("# the same\nMAX_QUEUE=256").digest


def test_reloadable_and_other_changes_are_told_apart() -> None:
    old = read("MAX_QUEUE=8\nSSE_PING_S=1\nMODEL_NAME=bundled")
    found = plan(old, read("MAX_QUEUE=9\nSSE_PING_S=2\nMODEL_NAME=elsewhere\nREVISION=r"))
    assert [(c.name, c.before, c.after) for c in found.applied] == [("SSE_PING_S", 1.0, 2.0)]
    assert [c.name for c in found.waiting] == ["MAX_QUEUE", "MODEL_NAME", "REVISION"]
    settings = found.snapshot.settings
    assert (settings.max_queue, settings.sse_ping_s, settings.model_name) == (8, 2.0, "bundled")
    assert found.snapshot.routing is old.routing
    assert plan(found.snapshot, old).snapshot.flat() == old.flat()


def test_a_file_in_place_of_the_environment() -> None:
    """The same engine, said elsewhere, goes on; another one waits with all of the file."""
    old = read("")
    Path("gateway.yaml").write_text(
        "models:\n- {name: tiny-chat, aliases: [new], targets: [{name: tiny-chat}]}\n"
    )
    found = plan(old, read("CONFIG_FILE=gateway.yaml"))
    assert not found.waiting
    assert found.snapshot.routing.models[0].aliases == ("new",)
    Path("gateway.yaml").write_text("models:\n- {name: other, targets: [{name: other}]}\n")
    found = plan(old, read('CONFIG_FILE=gateway.yaml\nLIMITS={"default_key":{"usd_per_day":1}}'))
    assert [change.name for change in found.applied] == ["LIMITS.default_key.usd_per_day"]
    assert found.snapshot.settings.config_file is None
    assert {"CONFIG_FILE", "models"} <= {change.name for change in found.waiting}


def test_what_stays_never_opens_the_server() -> None:
    """Without its keys the new configuration would be safe on loopback, but the server goes on
    listening where it does."""
    old = read(f"HOST=0.0.0.0\nAPI_KEYS={KEY}")
    new = read("HOST=127.0.0.1")
    with pytest.raises(ConfigInvalid, match="there is no API key"):
        plan(old, new)


def test_all_faults_are_told() -> None:
    Path("gateway.yaml").write_text("models: [{name: m}]")
    with pytest.raises(ConfigInvalid) as caught:
        read("PORT=x\nSSE_PING_S=-1\nNOPE=1\nCONFIG_FILE=gateway.yaml\nPRICES_FILE=missing.yaml")
    message = str(caught.value)
    for part in ("PORT:", "SSE_PING_S:", "NOPE: no such", "PRICES_FILE:", "gateway.yaml:1: models"):
        assert part in message, part
