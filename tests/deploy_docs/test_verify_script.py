"""scripts/verify_cloud.sh runs to its end, with specs that the commands take, and tells the truth.

``gcloud``, ``curl`` and the cloud's side of ``llm-gateway`` are stood in for; specs are read by the
real code, and commands by the real command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from command_checks import ROOT, check
from shell_commands import Command

from deploy.cloudrun.spec import load_spec as read_cloudrun
from deploy.vertex.spec import load_spec as read_vertex

SCRIPT = ROOT / "scripts" / "verify_cloud.sh"

STAND_IN = """#!{python}
import json, os, pathlib, shutil, sys
name, arguments = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
log = pathlib.Path({log!r})
with (log / "calls").open("a") as file:
    file.write(json.dumps([name, *arguments]) + "\\n")
for word in arguments:
    if word.endswith(("cloudrun.yaml", "vertex.yaml")):
        shutil.copy(word, log)
if name == "llm-gateway" and "status" in arguments:
    print(json.dumps({{"url": "https://verify.a.run.app"}}))
if name == "curl":
    if "-w" in arguments:
        print(os.environ["CODE"], end="")
    elif os.environ["ANSWER"]:
        print('data: {{"choices": []}}\\n\\ndata: [DONE]\\n')
    else:
        sys.exit("it is not there")
if name == "gcloud":
    print("1234567890")
"""


Run = Callable[..., tuple[str, list[list[str]]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("gcloud", "curl", "llm-gateway"):
        program = programs / name
        program.write_text(STAND_IN.format(python=sys.executable, log=str(tmp_path)))
        program.chmod(0o755)

    def run_script(*arguments: str, **environment: str) -> tuple[str, list[list[str]]]:
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [SCRIPT, *arguments],
            env={**os.environ, "PATH": path, "ANSWER": "1", "CODE": "403", **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        calls = (tmp_path / "calls").read_text().splitlines()
        return done.stdout, [json.loads(call) for call in calls]

    return run_script


def test_it_goes_through_and_removes_what_it_made(run: Run, tmp_path: Path) -> None:
    table, calls = run("my-project", "europe-west4")
    assert "**no**" not in table
    assert table.count("| yes |") == 9
    for call in calls:
        if call[0] != "curl":
            check(Command("verify_cloud.sh", tuple(call)))
    assert read_cloudrun(tmp_path / "cloudrun.yaml").region == "europe-west4"
    assert read_vertex(tmp_path / "vertex.yaml").project == "my-project"
    done = [" ".join(call[:4]) for call in calls]
    for made, removed in (
        ("llm-gateway deploy cloudrun apply", "llm-gateway deploy cloudrun destroy"),
        ("llm-gateway deploy vertex apply", "llm-gateway deploy vertex destroy"),
        ("gcloud secrets create llm-gateway-verify-keys",) * 2,
        ("gcloud artifacts repositories create",) * 2,
    ):
        assert done.index(made) < done.index(removed.replace("create", "delete"))


def test_what_does_not_work_is_told(run: Run) -> None:
    table, _ = run("my-project", "us-central1", "cloudrun", ANSWER="", CODE="200")
    assert "| Cloud Run: a streamed answer | **no** |" in table
    assert "| Cloud Run: private | **no** | 200 without an identity |" in table
    assert "Vertex" not in table


def test_it_keeps_what_it_made_where_that_is_asked_for(run: Run) -> None:
    _, calls = run("my-project", "us-central1", "vertex", KEEP="1")
    assert not any("destroy" in call or "delete" in call for call in calls)


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, SCRIPT], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
