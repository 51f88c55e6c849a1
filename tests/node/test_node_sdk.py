"""OpenAI's SDK for Node against running gateways; ``make node`` installs what this needs.

The tests themselves are the ``*.test.mjs`` beside this file.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "gateway"))
sys.path.append(str(Path(__file__).parents[1] / "engine"))

from encoder_checkpoints import LONGEST, word_piece
from server_process import ServerProcess
from table_encoder import write_table_encoder

HERE = Path(__file__).parent
TESTS = sorted(path.name for path in HERE.glob("*.test.mjs"))
KEY = "node-test-key-of-some-length"
OLDEST = 20
PATIENCE_S = 300


@pytest.fixture(scope="session")
def node() -> str:
    """The interpreter. Skips where it or the SDK could not be installed."""
    for found in (Path(sys.executable).parent / "node", shutil.which("node")):
        if found is None or not Path(found).exists():
            continue
        version = subprocess.run([found, "--version"], capture_output=True, text=True, check=True)
        if int(version.stdout.strip().lstrip("v").partition(".")[0]) >= OLDEST:
            break
    else:
        pytest.skip(f"no Node.js {OLDEST} or newer, and `make node` could not install one")
    if not (HERE / "node_modules" / "openai" / "package.json").exists():
        pytest.skip("the openai package for Node is not installed, see `make node`")
    return str(found)


@pytest.fixture(scope="session")
def gateways(node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that tells the tests where the gateways are."""
    folder = tmp_path_factory.mktemp("node")
    encoder = write_table_encoder(
        folder / "encoder", word_piece(), vocabulary=300, dimension=32, longest=LONGEST
    )
    model = {"model_name": str(encoder), "served_model_name": "embedder", "engine": "onnx"}
    (folder / "fast").mkdir()
    (folder / "slow").mkdir()
    fast = ServerProcess(
        folder / "fast", ENGINE="onnx", MAX_NUM_SEQS="4", MODELS=json.dumps([model])
    )
    minutes = {"text": "word " * 200, "itl_s": 0.5}
    slow = ServerProcess(folder / "slow", options=minutes, MAX_NUM_SEQS="1", API_KEYS=KEY)
    try:
        fast.wait_ready()
        slow.wait_ready()
        yield {"GATEWAY_URL": fast.url, "SLOW_GATEWAY_URL": slow.url, "GATEWAY_KEY": KEY}
    finally:
        fast.kill()
        slow.kill()


def test_there_are_tests() -> None:
    assert len(TESTS) == 4


@pytest.mark.parametrize("name", TESTS)
def test_the_sdk_notices_no_difference(node: str, gateways: dict[str, str], name: str) -> None:
    run_node(node, gateways, name)


def run_node(node: str, gateways: dict[str, str], name: str) -> None:
    """Run one file of tests; all of them have to pass."""
    done = subprocess.run(
        [node, "--test", name],
        cwd=HERE,
        env={**os.environ, **gateways},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n# fail 0\n" in done.stdout or "ℹ fail 0\n" in done.stdout
    assert "Warning" not in done.stderr, done.stderr
