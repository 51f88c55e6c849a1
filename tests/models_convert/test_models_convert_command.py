"""``llm-gateway model convert`` from start to end, in processes of its own."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from convert_command import Command
from convert_gpt2 import TEXTS, write_gpt2
from convert_hub_server import FakeHub
from encoder_checkpoints import write_encoder

from engine.models.compare import PROMPTS
from engine.onnx.prepared import Manifest
from engine.onnx_encoder.layout import EncoderModel


@pytest.fixture(scope="module")
def checkpoint(convert_extra: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gpt2(tmp_path_factory.mktemp("gpt2") / "distil")


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[FakeHub]:
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    with FakeHub("acme/distil", files) as running:
        yield running


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_interrupted_in_the_download_then_resumed_converted_and_compared(
    hub: FakeHub, tmp_path: Path
) -> None:
    place, run = tmp_path / "place", tmp_path / "run"
    (tmp_path / "prompts.txt").write_text("\n\n".join(TEXTS), encoding="utf-8")
    arguments = ["acme/distil", "--out", str(place / "made"), "--precision", "fp32"]
    arguments += ["--prompts", str(tmp_path / "prompts.txt"), "--tokens", "12"]
    size = len(hub.files["model.safetensors"])
    hub.stall_at = {"model.safetensors": size // 2}
    with Command(run, *arguments, HF_ENDPOINT=hub.url) as first:
        assert hub.stalled.wait(120), first.said()
        assert first.interrupt() == 130, first.said()
        assert "interrupted" in first.err.read_text()
        assert "Traceback" not in first.said()
    assert not place.exists()

    with Command(run, *arguments, HF_ENDPOINT=hub.url, COLUMNS="120") as second:
        assert second.wait() == 0, second.said()
    table = second.out.read_text()
    for part in ("greedy", "max diff", TEXTS[0][:20], "12/12", "GPT2LMHeadModel, fp32, 391,104"):
        assert part in table
    assert f"MODEL_NAME={place / 'made'} ENGINE=onnx llm-gateway serve" in table
    asked = Counter(name for name, _ in hub.ranges)
    assert asked.pop("model.safetensors") == 2
    assert set(asked.values()) == {1}, "files that had arrived were downloaded again"
    assert left_in(place) == {"made"}
    assert Manifest.read(place / "made").precision == "fp32"
    told = json.loads((place / "made" / "conversion.json").read_text())
    assert told["kind"] == "decoder"
    assert told["architecture"] == "GPT2LMHeadModel"
    assert [row["prompt"] for row in told["rows"]] == TEXTS
    for row in told["rows"]:
        assert row["same_tokens"] == row["tokens"] == 12
        assert 0 < row["max_logit_difference"] < 1e-4
        assert row["same_choice"] == 1.0


def test_interrupted_in_the_conversion_nothing_stays(checkpoint: Path, tmp_path: Path) -> None:
    place = tmp_path / "place"
    abandoned = place / ".made.making-killed"  # what a run that was killed leaves
    abandoned.mkdir(parents=True)
    with Command(tmp_path / "run", str(checkpoint), "--out", str(place / "made")) as command:
        command.wait_for("reading the weights")
        assert not abandoned.exists()
        assert len(left_in(place)) == 1
        assert command.interrupt() == 130, command.said()
        assert "made was not made" in command.err.read_text()
        assert "Traceback" not in command.said()
    assert left_in(place) == set()


def test_an_encoder_keeps_its_vectors(convert_extra: None, tmp_path: Path) -> None:
    source, place = write_encoder(tmp_path / "bert"), tmp_path / "place"
    with Command(tmp_path / "run", str(source), "--out", str(place / "made"), "--json") as command:
        assert command.wait() == 0, command.said()
        told: dict[str, Any] = json.loads(command.out.read_text())
    assert json.loads((place / "made" / "conversion.json").read_text()) == told
    assert (told["kind"], told["precision"]) == ("encoder", "fp32")
    assert [row["prompt"] for row in told["rows"]] == list(PROMPTS)
    for row in told["rows"]:
        assert row["cosine"] > 0.9999
        assert 0 <= row["distance"] < 1e-4
    shutil.rmtree(source)
    assert EncoderModel.read(place / "made").hidden_size > 0
