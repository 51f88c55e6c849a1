"""Downloads from a local server that speaks the hub's protocol."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from convert_hub_server import COMMIT, FakeHub

from engine.base import EngineStartError
from engine.models.hub import COMPLETE, download

MODEL = "acme/tiny"


def safetensors_bytes(size: int) -> bytes:
    header = json.dumps(
        {"w": {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(i * 7 % 251 for i in range(size))


FILES = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": safetensors_bytes(200_000),
    "pytorch_model.bin": b"a pickle",
    "modeling_evil.py": b"raise SystemExit",
    "README.md": b"hello",
    "original/model.safetensors": b"another layout",
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with FakeHub(MODEL, dict(FILES)) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_TOKEN", "hf_testtoken")
        yield server


def silent(_: str, __: float | None) -> None:
    pass


def test_only_config_tokenizer_and_safetensors_arrive(hub: FakeHub, tmp_path: Path) -> None:
    seen: list[float] = []
    folder = download(MODEL, None, tmp_path, lambda _, part: part and seen.append(part))
    found = {p.name for p in folder.iterdir() if p.is_file()} - {COMPLETE}
    assert found == {"config.json", "tokenizer.json", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert folder.name == COMMIT
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert hub.tokens == {"Bearer hf_testtoken"}


def test_a_broken_connection_is_resumed_where_it_broke(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Written to disk, and so kept, in pieces of this size; 10 MB is more than this file.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    hub.break_at["model.safetensors"] = 70_000
    folder = download(MODEL, None, tmp_path, silent)
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    starts = [wanted for name, wanted in hub.ranges if name == "model.safetensors"]
    assert len(starts) == 2
    assert starts == [None, "bytes=70000-"]


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_wrong_checksum_is_refused_and_the_next_start_heals(
    hub: FakeHub, tmp_path: Path, name: str
) -> None:
    hub.corrupt = (name,)
    with pytest.raises(EngineStartError, match=rf"{name} .* arrived damaged .* start again"):
        download(MODEL, None, tmp_path, silent)
    hub.corrupt = ()
    folder = download(MODEL, None, tmp_path, silent)
    assert (folder / name).read_bytes() == FILES[name]


def test_a_second_start_asks_only_for_the_listing(hub: FakeHub, tmp_path: Path) -> None:
    download(MODEL, None, tmp_path, silent)
    hub.ranges.clear()
    download(MODEL, None, tmp_path, silent)
    assert hub.ranges == []


def test_a_pinned_commit_needs_no_hub_the_second_time(hub: FakeHub, tmp_path: Path) -> None:
    first = download(MODEL, COMMIT, tmp_path, silent)
    hub.failing = 500
    assert download(MODEL, COMMIT, tmp_path, silent) == first


def test_without_a_hub_the_copy_of_last_time_serves(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = download(MODEL, "main", tmp_path, silent)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert download(MODEL, "main", tmp_path, silent) == first
    with pytest.raises(EngineStartError, match="could not be reached"):
        download(MODEL, "other", tmp_path, silent)


def test_a_gated_model_says_how_to_get_in(hub: FakeHub, tmp_path: Path) -> None:
    hub.gated = True
    with pytest.raises(EngineStartError, match=r"gated: accept its terms .* HF_TOKEN"):
        download(MODEL, None, tmp_path, silent)


def test_an_unknown_model_and_an_unknown_revision(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match=r"no model acme/nothing .* check the spelling"):
        download("acme/nothing", None, tmp_path, silent)
    with pytest.raises(EngineStartError, match="no revision v9: set REVISION"):
        download(MODEL, "v9", tmp_path, silent)


def test_a_model_without_safetensors_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    del hub.files["model.safetensors"]
    with pytest.raises(EngineStartError, match=r"no safetensors files .* pickled"):
        download(MODEL, None, tmp_path, silent)


def test_a_hub_that_answers_badly(hub: FakeHub, tmp_path: Path) -> None:
    hub.failing = 418
    with pytest.raises(EngineStartError, match=r"answered 418 .* try again later"):
        download(MODEL, None, tmp_path, silent)


def test_too_little_disk_is_found_before_the_first_byte(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(EngineStartError, match=r"needs about .* GiB .* MODEL_CACHE_DIR"):
        download(MODEL, None, tmp_path, silent)
    assert hub.ranges == []


def test_offline_mode_says_so(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(EngineStartError, match=r"HF_HUB_OFFLINE is set .* never downloaded"):
        download(MODEL, None, tmp_path, silent)
