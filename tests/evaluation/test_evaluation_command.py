"""``llm-gateway model eval`` as a person uses it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_llama import Shape, random_weights, write_prepared
from typer.testing import CliRunner

from gateway.cli import app

SHAPE = Shape(vocab=320, max_len=256)


def command(*arguments: object, code: int = 0) -> Any:
    shown = CliRunner().invoke(app, ["model", "eval", *map(str, arguments)])
    assert shown.exit_code == code, shown.output
    return shown


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and a rougher variant of it, without a chat template."""
    place = tmp_path_factory.mktemp("variants")
    original = random_weights(SHAPE)
    rng = np.random.default_rng(1)
    rough = {
        name: (array + 0.02 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in original.items()
    }
    return (
        write_prepared(place / "model", SHAPE, original),
        write_prepared(place / "rough", SHAPE, rough),
    )


def test_variants_side_by_side_in_a_table_and_a_file(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    model, rough = folders
    tasks, out = tmp_path / "tasks.jsonl", tmp_path / "eval.json"
    tasks.write_text('{"prompt": "ab", "regex": "."}\n{"prompt": "cd", "answer": "never"}\n')
    text = tmp_path / "text.txt"
    text.write_text("The river rose during the night. " * 20)
    options = ["--text", text, "--tasks", tasks, "--tokens", 300, "--context", 64]
    options += ["--stride", 32, "--max-tokens", 4, "--threads", 1, "--out", out]
    shown = command(model, "--variants", f"{rough},fp32", *options)
    found = json.loads(out.read_text())
    assert found["reference"] == "fp32"
    assert found["settings"] == {"context": 64, "stride": 32, "tokens": 300}
    assert "the first 300 of " in found["text"]
    names = [one["name"] for one in found["variants"]]
    assert names == ["fp32", str(rough)]
    first, second = found["variants"]
    assert first["accuracy"] == second["accuracy"] == 0.5
    assert first["skills"] == {"tasks": {"correct": 1, "total": 2}}
    assert first["losses"] == {}
    assert first["text"]["agreement"] == 1
    assert second["text"]["kl"] > 0
    assert second["megabytes"] == pytest.approx((rough / "model.onnx").stat().st_size / 1e6)
    assert second["token_ms"] > 0
    losses = second["losses"]
    lost = second["text"]["perplexity"] - first["text"]["perplexity"]
    assert losses["perplexity"]["amount"] == pytest.approx(lost)
    assert losses["perplexity"]["standard_error"] > 0
    assert losses["accuracy"]["amount"] == 0
    assert losses["kl"]["per_megabyte_saved"] is None  # neither is smaller than the other
    assert "perplexity" in shown.stdout
    assert "Quality lost to fp32" in shown.stdout
    assert "scoring the text" in shown.stderr
    assert "scoring the text" not in shown.stdout


def test_a_variant_that_is_not_served_is_scored_on_text_only(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    model, rough = folders
    unserved = tmp_path / "static"
    shutil.copytree(rough, unserved)
    manifest = json.loads((unserved / "gateway_model.json").read_text())
    changed = json.dumps(manifest | {"precision": "int8_static"})
    (unserved / "gateway_model.json").write_text(changed)
    tasks, text = tmp_path / "tasks.jsonl", tmp_path / "text.txt"
    tasks.write_text('{"prompt": "ab", "regex": "."}')
    text.write_text("The river rose during the night.")
    options = ["--text", text, "--tasks", tasks, "--max-tokens", 2, "--threads", 1, "--json"]
    found = json.loads(command(model, "--variants", f"fp32,{unserved}", *options).stdout)
    assert [one["accuracy"] for one in found["variants"]] == [1, None]
    assert found["variants"][1]["text"]["kl"] > 0
    assert "accuracy" not in found["variants"][1]["losses"]


def test_json_alone_on_stdout_and_a_built_in_text(folders: tuple[Path, Path]) -> None:
    shown = command(folders[0], "--tokens", 80, "--json", "--threads", 1)
    found = json.loads(shown.stdout)
    assert found["text"] == "built-in conversations, 80 tokens"
    assert found["tasks"] is None
    assert [one["name"] for one in found["variants"]] == ["fp32"]


def test_the_bundled_model_answers_tasks_through_its_chat_template(tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    questions = [
        {"prompt": "What is the capital of France?", "contains": "Paris", "skill": "facts"},
        {"prompt": "What is the capital of France?", "contains": "Madrid", "skill": "traps"},
    ]
    tasks.write_text("\n".join(map(json.dumps, questions)))
    options = ["--variants", "int8", "--no-fp32", "--tasks", tasks, "--json"]
    (one,) = json.loads(command("bundled", *options).stdout)["variants"]
    assert one["text"] is None
    assert one["skills"] == {
        "facts": {"correct": 1, "total": 1},
        "traps": {"correct": 0, "total": 1},
    }


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--variants", "int3"], "there is no variant 'int3'"),
        (["--text", "absent.txt"], "there is no absent.txt"),
        (["--tasks", "absent.jsonl"], "there is no absent.jsonl"),
        (["--context", "9999"], "--context must be from 2 to 256"),
        (["--context", "64", "--stride", "64"], "--stride must be below the context (64)"),
        (["--out", "absent/eval.json"], "absent/eval.json cannot be written"),
        (["--variants", "int8"], "is prepared as fp32"),
    ],
)
def test_what_cannot_be_evaluated(folders: tuple[Path, Path], options: list[str], why: str) -> None:
    shown = command(folders[0], *options, code=1)
    assert why in shown.stderr
    assert "Traceback" not in shown.output


def test_models_that_are_not_there() -> None:
    assert "there is no folder ./absent" in command("./absent", code=1).stderr


def test_messages_need_a_chat_template(folders: tuple[Path, Path], tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.jsonl"
    message = {"role": "user", "content": "Hi"}
    tasks.write_text(json.dumps({"messages": [message, message], "answer": "x"}))
    shown = command(folders[0], "--tasks", tasks, code=1)
    assert "has no chat template" in shown.stderr


def test_the_help_has_examples() -> None:
    shown = command("--help").stdout
    assert "llm-gateway model eval bundled --variants" in re.sub(r"\s+", " ", shown)


def test_an_interrupt_ends_it_without_a_traceback(tmp_path: Path) -> None:
    text, out = tmp_path / "long.txt", tmp_path / "eval.json"
    text.write_text("The river rose during the night. " * 30_000)
    arguments = ["bundled", "--variants", "int8", "--no-fp32", "--text", text, "--out", out]
    arguments += ["--tokens", 10_000_000, "--threads", 1]
    with subprocess.Popen(
        [sys.executable, "-m", "gateway", "model", "eval", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            said = ""
            while "scoring the text" not in said:
                line = process.stderr.readline()
                assert line, said
                said += line
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "stopped: nothing was written" in errors
    assert "Traceback" not in errors + rest
    assert not out.exists()
