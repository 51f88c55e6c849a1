"""``llm-gateway triton export`` and ``check`` as a user meets them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import onnx
import pytest
from triton_models import write_encoder, write_lookup, write_net
from typer.testing import CliRunner, Result

from deploy.triton import repository as repositories
from deploy.triton.kinds import Wishes, plan
from deploy.triton.repository import check_repository, write_repository
from deploy.triton.schema import parse
from deploy.triton.server import Ports
from deploy.triton.tensors import read_graph
from gateway.cli import app


def triton(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["triton", *map(str, words)])


def refusal(*words: str | Path) -> str:
    """The one sentence that ends a command that cannot go on."""
    done = triton(*words)
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("llm-gateway: ")
    assert "Traceback" not in done.output
    return done.stderr


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return write_net(tmp_path / "source" / "net.onnx", external=True)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, triton_python: Path) -> Path:
    """A repository of one graph; do not write into it."""
    folder = tmp_path_factory.mktemp("sound")
    net = write_net(folder / "net.onnx", external=True)
    write_repository(plan(str(net), Wishes()), folder / "made", triton_python)
    return folder / "made"


@pytest.fixture
def made(sound: Path, tmp_path: Path) -> Path:
    """The same, for tests that spoil it."""
    return Path(shutil.copytree(sound, tmp_path / "made"))


def test_every_choice_reaches_the_config(net: Path, tmp_path: Path, triton_python: Path) -> None:
    out = tmp_path / "deep" / "repo"
    options = (
        *("--name", "ranker", "--backend", "onnxruntime", "--device", "gpu", "--instances", 2),
        *("--max-batch-size", 16, "--preferred", "16,4", "--queue-delay-us", 900, "--threads", 3),
        *("--priorities", 4, "--max-queue-size", 32, "--queue-timeout-ms", 250, "--version", 7),
    )
    done = triton("export", net, out, *map(str, options), "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert row["inputs"] == ["x fp32[-1, 4]", "scale fp32[-1, 1]", "label string[-1, 1]"]
    assert row["versions"] == [7]
    text = (out / "ranker" / "config.pbtxt").read_text()
    config = parse(triton_python, {"ranker": text})["ranker"]
    assert config["backend"] == "onnxruntime"
    assert config["instance_group"] == [{"kind": "KIND_GPU", "count": 2}]
    assert config["dynamic_batching"] == {
        "preferred_batch_size": [4, 16],
        "max_queue_delay_microseconds": 900,
        "priority_levels": 4,
        "default_priority_level": 2,
        "default_queue_policy": {
            "default_timeout_microseconds": 250_000,
            "allow_timeout_override": True,
            "max_queue_size": 32,
        },
    }
    assert config["parameters"] == {"intra_op_thread_count": {"string_value": "3"}}
    version = out / "ranker" / "7"
    assert sorted(p.relative_to(version).as_posix() for p in version.rglob("*") if p.is_file()) == [
        "model.onnx/model.onnx",
        "model.onnx/weights.bin",
    ]
    assert read_graph(version / "model.onnx" / "model.onnx") == read_graph(net)


def test_nothing_is_overwritten_unless_asked(made: Path, net: Path) -> None:
    config = made / "net" / "config.pbtxt"
    config.write_text(config.read_text() + "# mine\n")
    assert "add --force" in refusal("export", net, made)
    assert config.read_text().endswith("# mine\n")
    done = triton("export", net, made, "--force")
    assert done.exit_code == 0, done.output
    assert "mine" not in config.read_text()
    assert [path.name for path in made.parent.iterdir() if path.name.startswith(".")] == []


def test_a_model_gets_another_version(made: Path, net: Path) -> None:
    assert "has a version 1 already" in refusal("export", net, made)
    done = triton("export", net, made, "--version", "2")
    assert done.exit_code == 0, done.output
    assert (made / "net" / "2" / "model.onnx" / "weights.bin").is_file()
    assert (made / "net" / "1" / "model.onnx" / "weights.bin").is_file()
    assert "with another configuration" in refusal(
        "export", net, made, "--version", "3", "--threads", "2"
    )


def test_an_interrupted_export_leaves_nothing(
    net: Path, tmp_path: Path, triton_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(repositories, "check_repository", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_repository(plan(str(net), Wishes()), tmp_path / "repo", triton_python)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_an_unreadable_source_leaves_nothing(
    net: Path, tmp_path: Path, triton_python: Path
) -> None:
    parts = plan(str(net), Wishes())
    (net.parent / "weights.bin").write_bytes(b"short")
    assert "cannot load" in refusal("export", net, tmp_path / "repo")
    with pytest.raises(repositories.TritonError, match="cannot load"):
        write_repository(parts, tmp_path / "repo", triton_python)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ('name: "net"', 'name: "net"\nmax_batch: 4', 'no field named "max_batch"'),
        ('name: "net"', 'name: "ner"', "names the model 'ner': Triton wants the folder's name"),
        ('name: "x"', 'name: "z"', "the graph has no input z, only x, scale, label"),
        ('name: "total"', 'name: "sum"', "the graph has no output sum"),
        ("dims: 4", "dims: 5", "the input x is [-1, 5] and [-1, 4] in the graph"),
        ("TYPE_STRING", "TYPE_INT64", "label is TYPE_INT64 and TYPE_STRING in the graph"),
        ("preferred_batch_size: 8", "preferred_batch_size: 9", "the preferred batch size 9 is not"),
        ("max_batch_size: 8", "max_batch_size: 0", "the preferred batch size 8 is not"),
        ("dynamic_batching {", "dynamic_batching { priority_levels: 2", "default_priority_level 0"),
        ("count: 1", "count: -1", "an instance_group has a count below 1"),
    ],
)
def test_check_finds_what_a_hand_spoilt(
    made: Path, triton_python: Path, old: str, new: str, wanted: str
) -> None:
    config = made / "net" / "config.pbtxt"
    text = config.read_text()
    assert old in text
    config.write_text(text.replace(old, new, 1))
    with pytest.raises(repositories.TritonError) as refused:
        check_repository(made, triton_python)
    assert wanted in str(refused.value)


def test_check_finds_what_is_missing(made: Path, tmp_path: Path) -> None:
    assert triton("check", made).exit_code == 0
    (made / "net" / "1" / "model.py").unlink()
    assert "net/1 has no model.py" in refusal("check", made)
    shutil.rmtree(made / "net" / "1")
    assert "net has no version folder" in refusal("check", made)
    (made / "net" / "config.pbtxt").unlink()
    assert "has no config.pbtxt" in refusal("check", made)
    shutil.rmtree(made / "net")
    assert "has no models" in refusal("check", made)
    assert "there is no folder" in refusal("check", tmp_path / "nowhere")


@pytest.mark.usefixtures("server")  # which says so where no server can run
def test_check_loads_a_repository_and_tells_why_not(made: Path) -> None:
    model = made / "net" / "1" / "model.py"
    model.write_text(f"{model.read_text()}\nraise RuntimeError('not today')\n")
    assert "not today" in refusal("check", made, "--load")


@pytest.mark.usefixtures("server")
def test_a_repository_is_served_until_the_command_is_ended(made: Path, tmp_path: Path) -> None:
    ports = Ports.free()
    options = [f"--{kind}-port={getattr(ports, kind)}" for kind in ("http", "grpc", "metrics")]
    command = [sys.executable, "-m", "gateway", "triton", "serve", str(made), *options]
    ready = f"http://127.0.0.1:{ports.http}/v2/models/net/ready"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 120
        while not answers(ready):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.terminate()
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
    assert not answers(ready)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def test_wrong_sources_are_told(tmp_path: Path, triton_python: Path) -> None:
    out = tmp_path / "repo"
    assert "there is no org/name" in refusal("export", "org/name", out)
    assert "has no model.onnx" in refusal("export", tmp_path, out)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    assert "onnxruntime cannot load" in refusal("export", broken, out)
    lookup = write_lookup(tmp_path / "lookup.onnx")
    assert "is a scalar in the graph" in refusal("export", lookup, out, "--backend", "onnxruntime")
    assert "has no batch dimension" in refusal("export", lookup, out, "--max-batch-size", "4")
    fixed = write_net(tmp_path / "fixed.onnx", batch=2)
    assert triton("export", fixed, out).exit_code == 0
    assert "max_batch_size" not in (out / "fixed" / "config.pbtxt").read_text()
    encoder = write_encoder(tmp_path / "encoder")
    graph = onnx.load(encoder / "onnx" / "model.onnx")
    graph.graph.output[0].name = graph.graph.node[-1].output[0] = "scores"
    onnx.save(graph, encoder / "onnx" / "model.onnx")
    assert "no token vectors" in refusal("export", encoder, out)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--backend", "tensorrt"], "is not one of auto, python, onnxruntime, vllm"),
        (["--backend", "onnxruntime"], "take --backend python"),
        (["--device", "gpu"], "take --backend onnxruntime for --device gpu"),
        (["--device", "tpu"], "neither cpu nor gpu"),
        (["--preferred", "four"], "is not a list of batch sizes"),
        (["--preferred", "16", "--max-batch-size", "8"], "is above the largest batch"),
        (["--default-priority", "4", "--priorities", "2"], "is not one of the 2 levels"),
        (["--max-model-len", "99999"], "is not between 2 and the model's 2048"),
        (["--name", "../up"], "is not a model's name"),
        (["--engine-arg", "quick"], "is not NAME=VALUE"),
    ],
)
def test_wrong_options_are_told(options: list[str], wanted: str, tmp_path: Path) -> None:
    assert wanted in refusal("export", "bundled", tmp_path / "repo", *options)
    assert not (tmp_path / "repo").exists()


def test_a_model_for_vllms_backend(tmp_path: Path, triton_python: Path) -> None:
    out = tmp_path / "repo"
    options = ("--backend", "vllm", "--name", "llama")
    arguments = ("gpu_memory_utilization=0.8", "tensor_parallel_size=2", "quantization=awq")
    pairs = [word for argument in arguments for word in ("--engine-arg", argument)]
    done = triton("export", "org/llama", out, *options, *pairs, "--max-model-len", "4096")
    assert done.exit_code == 0, done.output
    assert json.loads((out / "llama" / "1" / "model.json").read_text()) == {
        "model": "org/llama",
        "gpu_memory_utilization": 0.8,
        "tensor_parallel_size": 2,
        "quantization": "awq",
        "max_model_len": 4096,
    }
    for argument, wanted in (
        ("gpu_memory_utilisation=0.8", "did you mean gpu_memory_utilization?"),
        ("gpu_memory_utilization=8", "has to be above 0 and at most 1"),
        ("tensor_parallel_size=two", "has to be a positive integer"),
    ):
        assert wanted in refusal("export", "org/llama", out, *options, "--engine-arg", argument)
    config = out / "llama" / "config.pbtxt"
    sound = config.read_text()
    for old, new, wanted in (
        ("KIND_MODEL", "KIND_GPU", "needs instance_group kind KIND_MODEL"),
        ("decoupled: true", "decoupled: false", "set model_transaction_policy decoupled to true"),
        ('backend: "vllm"', 'backend: "vllm" max_batch_size: 4', "set max_batch_size to 0"),
    ):
        assert old in sound
        config.write_text(sound.replace(old, new))
        assert wanted in refusal("check", out)


def test_a_missing_environment_is_told_with_its_remedy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "triton", "export", "bundled", str(tmp_path / "repo")],
        env=os.environ | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "python -m engine.environments triton" in done.stderr
    assert not (tmp_path / "repo").exists()


def test_the_help_shows_examples() -> None:
    for command in ("export", "check", "serve"):
        assert f"llm-gateway triton {command} " in triton(command, "--help").stdout
