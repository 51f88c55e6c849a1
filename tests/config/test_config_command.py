"""``llm-gateway config``, as a user runs it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner, Result

from gateway.cli import app
from gateway.settings import Settings

ROOT = Path(__file__).parents[2]
KEY = "a-planted-key-for-the-tests"


@pytest.fixture(autouse=True)
def own_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.lower() in Settings.model_fields:
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def config(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["config", *arguments])


def test_check() -> None:
    assert config("check").exit_code == 0
    Path(".env").write_text("MAX_QUEUE=-1\n")
    found = config("check")
    assert found.exit_code == 1
    assert "MAX_QUEUE: Input should be greater than or equal to 0" in found.stderr
    found = config("check", "--env-file", "nowhere")
    assert found.exit_code == 1
    assert "is no file" in found.stderr


def test_show() -> None:
    Path(".env").write_text(f"API_KEYS={KEY}\nMAX_QUEUE=5\n")
    found = config("show")
    assert found.output.splitlines() == [
        'API_KEYS = ["**********"]  (.env)',
        "MAX_QUEUE = 5  (.env)",
    ]
    assert "HOST = 127.0.0.1  (default)" in config("show", "--all").output
    document = json.loads(config("show", "--json").output)
    values = {entry["name"]: entry for entry in document["settings"]}
    assert values["MAX_QUEUE"] == {"name": "MAX_QUEUE", "value": 5, "source": ".env"}
    assert len(values) == len(Settings.model_fields)
    assert KEY not in json.dumps(document)


def test_diff_of_files() -> None:
    Path(".env").write_text(f"API_KEYS={KEY}\n")
    Path("other.env").write_text(f"API_KEYS={KEY}2\nPORT=9000\n")
    found = config("diff", "--to-env", "other.env")
    assert found.output.splitlines() == [
        'reload   API_KEYS: ["**********"] (another value)',
        "restart  PORT: 8000 -> 9000",
    ]
    assert config("diff", "--to-env", ".env").output == "no difference\n"
    found = config("diff", "--url", "http://127.0.0.1:1")
    assert found.exit_code == 1
    assert "does not answer" in found.stderr


def test_schema_takes_what_the_documentation_shows() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(config("schema").output))
    validator.check_schema(validator.schema)
    text = (ROOT / "docs" / "routing.md").read_text()
    blocks = [b for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "models:" in b]
    documents = [yaml.safe_load(block) for block in blocks if "[...]" not in block]
    assert documents
    for document in documents:
        validator.validate(document)


@pytest.mark.parametrize(
    "target",
    [
        {"base_url": "http://h/v1", "wieght": 1},
        {"base_url": "http://h/v1", "weight": "1"},
        {"max_model_len": 512, "port": 1},
        {"model_name": "bundled", "replicas": 0},
    ],
)
def test_schema_refuses(target: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(config("schema").output))
    good = {"models": [{"name": "m", "targets": [{"base_url": "http://h/v1"}, {"replicas": 2}]}]}
    assert validator.is_valid(good)
    assert not validator.is_valid({"models": [{"name": "m", "targets": [target]}]})


def test_schema_of_settings() -> None:
    schema = json.loads(config("schema", "--settings").output)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == {name.upper() for name in Settings.model_fields}
