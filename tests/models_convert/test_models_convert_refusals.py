"""What ``llm-gateway model convert`` says when it cannot, and graphs that it takes as they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from convert_checkpoints import write_config, write_weights
from convert_hub_server import FakeHub
from typer.testing import CliRunner

from engine.base import EngineStartError
from engine.models import convert_to as module
from engine.models import find
from engine.models.out_folder import new_folder
from gateway.cli import app

onnx = pytest.importorskip("onnx")

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL_CACHE_DIR", str(tmp_path / "cache"))

    def invoke(*arguments: str) -> Result:
        done = CliRunner().invoke(app, ["model", "convert", *arguments])
        assert "Traceback" not in done.output
        return done

    return invoke


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    write_config(made, architectures=["GPT2LMHeadModel"])
    (made / "tokenizer.json").write_text("{}")
    write_weights(made / "model.safetensors")
    return made


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "run_export", pytest.fail)
    monkeypatch.setattr(module, "require_convert_extra", lambda *_: None)


def refused(done: Result, *parts: str) -> None:
    assert done.exit_code == 1, done.output
    last = done.output.strip().splitlines()[-1]
    assert last.startswith("llm-gateway: ")
    for part in parts:
        assert part in last


def test_help_shows_examples(run: Run) -> None:
    done = run("--help")
    assert done.exit_code == 0
    assert "llm-gateway model convert ./distilgpt2 --out ./distilgpt2-int8" in done.output


def test_sources_that_are_not_models(run: Run, folder: Path, no_export: None) -> None:
    refused(run("./nothing", "--out", "o"), "there is no folder ./nothing")
    (folder / "tokenizer.json").unlink()
    refused(run("model", "--out", "o"), "has no tokenizer.json")
    write_config(folder, architectures=["OPTForCausalLM"])
    refused(run("model", "--out", "o"), "does not cover OPTForCausalLM", "GPT2LMHeadModel")
    (folder / "model.safetensors").unlink()
    write_config(folder, architectures=["GPT2LMHeadModel"])
    refused(run("model", "--out", "o"), "no safetensors files")
    assert not Path("o").exists()


def test_a_family_on_the_hub_is_looked_at_before_the_weights_come(
    run: Run, no_export: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.dumps({"architectures": ["OPTForCausalLM"]}).encode()
    files = {"config.json": config, "tokenizer.json": b"{}", "model.safetensors": bytes(4096)}
    with FakeHub("acme/opt", files) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        refused(run("acme/opt", "--out", "o"), "does not cover OPTForCausalLM")
        assert [name for name, _ in hub.ranges] == ["config.json"]
        refused(run("acme/other", "--out", "o"), "the hub has no model acme/other")


def test_what_is_served_already_is_not_converted(run: Run, tmp_path: Path) -> None:
    for name in ("gateway_model.json", "gateway_encoder.json"):
        made = tmp_path / name.partition(".")[0]
        made.mkdir()
        (made / name).write_text("{}")
        (made / "model.onnx").write_bytes(b"")
        refused(run(str(made), "--out", "o"), "is converted already: serve it with MODEL_NAME")
    ready = tmp_path / "ready"
    ready.mkdir()
    write_config(ready, architectures=["BertModel"])
    (ready / "model.onnx").write_bytes(b"")
    refused(run("ready", "--out", "o"), "holds a graph that is served as it is")


def test_places_that_must_not_be_written_to(
    run: Run, folder: Path, tmp_path: Path, no_export: None
) -> None:
    (tmp_path / "o").mkdir()
    refused(run("model", "--out", "o"), "o exists: give another --out, or --force")
    (tmp_path / "o" / "thesis.txt").write_text("years of work")
    refused(run("model", "--out", "o", "--force"), "not a converted model, so --force does not")
    (tmp_path / "file").write_text("")
    refused(run("model", "--out", "file"), "exists and is not a folder")
    refused(run("model", "--out", "model", "--force"), "holds the source itself")
    refused(run("model", "--out", ".", "--force"), "holds the source itself")
    refused(run("model", "--out", "file/o"), "cannot be made")
    assert (tmp_path / "o" / "thesis.txt").read_text() == "years of work"


def test_of_two_runs_for_one_place_the_first_to_end_wins(tmp_path: Path) -> None:
    out = tmp_path / "o"
    runs = ExitStack()
    slow = runs.enter_context(new_folder(out, force=False))
    with new_folder(out, force=False) as quick:
        assert slow.is_dir(), "the folder of a live run was removed"
        (quick / "model").mkdir()
        (quick / "model" / "whose").write_text("quick")
    (slow / "model").mkdir()
    with pytest.raises(EngineStartError, match="o exists: give another --out"):
        runs.close()
    assert [path.name for path in tmp_path.iterdir()] == ["o"]
    assert (out / "whose").read_text() == "quick"


def test_a_missing_extra_is_named(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "CONVERT_MODULES", ("json", "no_such_package"))
    refused(run("model", "--out", "o"), "(no_such_package): pip install 'llm-gateway[convert]'")


def test_no_space_is_found_before_the_export(
    run: Run, folder: Path, tmp_path: Path, no_export: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    refused(run("model", "--out", "place/o"), "converting model needs about", "give another --out")
    assert list((tmp_path / "place").iterdir()) == []


def test_prompts_are_read_before_anything_else(run: Run, tmp_path: Path) -> None:
    def with_prompts(name: str, content: bytes) -> Result:
        (tmp_path / name).write_bytes(content)
        return run("nothing", "--out", "o", "--prompts", name)

    refused(run("nothing", "--out", "o", "--prompts", "p"), "the prompts p cannot be read")
    refused(with_prompts("p.txt", b"\xff\xfe\x00"), "cannot be read")
    refused(with_prompts("p.txt", b" \n\n"), "holds no prompts")
    refused(with_prompts("p.jsonl", b'{"prompt": "a"}\n{"text": "b"}'), "p.jsonl, line 2 is not")
    refused(with_prompts("p.jsonl", b'{"prompt": "a"}'), "there is no folder nothing")


def test_a_disk_that_fills_while_the_exporter_writes() -> None:
    """The exporter's process, with a write that fails as on a full disk."""
    code = (
        "import errno, os, sys\n"
        "from engine.models.export import main\n"
        "def run(*_):\n"
        "    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "sys.argv = ['export', 'source', 'out', 'int8', 'label']\n"
        "sys.exit(main(run, ''))\n"
    )
    pytest.importorskip("onnx_ir")
    parent, mine = os.pipe()  # the exporter lives while its standard input is open
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdin=parent, capture_output=True, text=True
        )
    finally:
        os.close(parent)
        os.close(mine)
    assert done.returncode == 1
    assert done.stdout.startswith("@error there is no room on the disk (No space left on device)")
    assert done.stderr == ""


def write_graph(path: Path, *, external: bool = False, location: str = "weights.bin") -> Path:
    """A product with a 64 x 8 matrix, and half of it where the sum is positive."""
    from onnx import TensorProto, helper, numpy_helper

    half = helper.make_graph(
        [helper.make_node("Mul", ["y", "half"], ["less"])],
        "less",
        [],
        [helper.make_tensor_value_info("less", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(0.5, np.float32), "half")],
    )
    same = helper.make_graph(
        [helper.make_node("Identity", ["y"], ["same"])],
        "same",
        [],
        [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["z"], then_branch=half, else_branch=same),
    ]
    weights = np.arange(64 * 8, dtype=np.float32).reshape(64, 8)
    graph = helper.make_graph(
        nodes,
        "ranker",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 8])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.float32([0])[0], "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    if external:
        onnx.external_data_helper.convert_model_to_external_data(
            model, location=location, size_threshold=64
        )
    onnx.save(model, str(path))
    return path


def ran(path: Path) -> Any:
    import onnxruntime as ort

    return ort.InferenceSession(str(path)).run(None, {"x": np.ones((2, 64), np.float32)})[0]


@pytest.mark.parametrize("external", [False, True])
def test_another_graph_is_taken_as_it_is(run: Run, tmp_path: Path, external: bool) -> None:
    source = write_graph(tmp_path / "source" / "ranker.onnx", external=external)
    done = run("source" if external else str(source), "--out", "taken")
    assert done.exit_code == 0, done.output
    for part in ("[batch, 64]", "[batch, 8]", "1 MatMul", "514 parameters"):
        assert part in done.output
    assert "not served as a chat model" in done.output
    assert "llm-gateway model quantize" in done.output
    made = tmp_path / "taken"
    files = {"model.onnx", "gateway_graph.json"} | ({"weights.bin"} if external else set())
    assert {path.name for path in made.iterdir()} == files
    assert np.array_equal(ran(made / "model.onnx"), ran(source))
    told = json.loads((made / "gateway_graph.json").read_text())
    assert told["inputs"] == [{"name": "x", "type": "tensor(float)", "shape": ["batch", 64]}]
    assert told["operators"]["Identity"] == 1
    assert told["opsets"] == {"": 18}
    assert told["bytes"] == sum(p.stat().st_size for p in source.parent.iterdir())
    refused(run(str(source), "--out", "taken"), "exists")
    assert run(str(source), "--out", "taken", "--force", "--json").exit_code == 0


def test_graphs_that_cannot_be_taken(run: Run, tmp_path: Path) -> None:
    good = write_graph(tmp_path / "a" / "one.onnx", external=True)
    refused(run(str(good), "--out", "o", "--precision", "int8"), "without --precision")
    write_graph(tmp_path / "a" / "two.onnx")
    refused(run("a", "--out", "o"), "several graphs (one.onnx, two.onnx)")
    (tmp_path / "a" / "weights.bin").unlink()
    refused(run(str(good), "--out", "o"), "lacks its data file weights.bin")
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    refused(run("bad.onnx", "--out", "o"), "bad.onnx is not an ONNX graph")

    model = onnx.load(write_graph(tmp_path / "b" / "three.onnx"))
    model.graph.node[0].input[0] = "nobody"
    onnx.save(model, str(tmp_path / "broken.onnx"))
    refused(run("broken.onnx", "--out", "o"), "is not a valid ONNX graph")
    model.graph.node[0].input[0] = "x"
    model.graph.node[0].op_type = "Unheard"
    onnx.save(model, str(tmp_path / "unheard.onnx"))
    refused(run("unheard.onnx", "--out", "o"), "onnxruntime cannot load", "Unheard")

    model = onnx.load(
        write_graph(tmp_path / "c" / "four.onnx", external=True), load_external_data=False
    )
    model.graph.initializer[0].external_data[0].value = "../secret.bin"
    (tmp_path / "secret.bin").write_bytes(bytes(2048))
    onnx.save(model, str(tmp_path / "c" / "four.onnx"))
    refused(run("c/four.onnx", "--out", "o"), "outside its folder: refused")
    assert not any(path.name.startswith((".o", "o")) for path in tmp_path.iterdir())


def test_a_disk_that_fills_while_a_graph_is_copied(tmp_path: Path) -> None:
    """The shell's limit on the size of a file, in a real process: half a graph fits."""
    source = write_graph(tmp_path / "big.onnx", external=True, location="big.bin")
    with (tmp_path / "big.bin").open("ab") as data:
        data.truncate(4 << 20)
    command = f'ulimit -f 2048; exec "{sys.executable}" -m gateway model convert {source} --out o'
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"big.onnx", "big.bin"}
