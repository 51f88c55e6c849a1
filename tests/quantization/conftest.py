"""Models that the tests of this folder quantise and measure, and the command that does it."""

from __future__ import annotations

from pathlib import Path

import example_graphs as graphs
import pytest
from quantize_command import Command, Outcome
from random_llama import Shape, random_weights, write_prepared
from typer.testing import CliRunner

from gateway.cli import app


@pytest.fixture
def model_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """``llm-gateway model`` with these arguments, in this process."""
    monkeypatch.setenv("MODEL_CACHE_DIR", str(tmp_path / "cache"))

    def run(*arguments: object) -> Outcome:
        done = CliRunner().invoke(app, ["model", *map(str, arguments)], catch_exceptions=False)
        return Outcome(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def recommender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs.recommender(tmp_path_factory.mktemp("graphs") / "recommender.onnx")


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return graphs.classifier(tmp_path_factory.mktemp("graphs") / "classifier.onnx")


@pytest.fixture(scope="session")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared fp32 folder of a small random Llama."""
    folder = tmp_path_factory.mktemp("decoder") / "fp32"
    return write_prepared(folder, Shape(), random_weights(Shape()))
