"""A model that is an artifact: fetched from Cloud Storage by the container, then served."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prober_container import aip_environment, free_port
from server_process import MESSAGES
from storage_server import TOKEN, StorageServer
from vertex_specs import changed

from deploy.vertex import VertexError
from deploy.vertex.requests import container
from deploy.vertex.spec import Spec
from deploy.vertex.storage import ATTEMPTS, download
from engine.models.find import BundledModel

FILES = {
    "copy/llama/config.json": b"{}",
    "copy/llama/model-1.safetensors": bytes(range(256)) * 4000,
    "copy/llama/sub folder/tokenizer ü.json": b"tokens",
    "copy/llama/empty.txt": b"",
    "copy/llama/": b"",
    "copy/llama-other/config.json": b"another model's",
}
URI = "gs://models/copy/llama"


@pytest.fixture
def storage(monkeypatch: pytest.MonkeyPatch) -> Iterator[StorageServer]:
    with StorageServer(dict(FILES)) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{server.host}")
        monkeypatch.setenv("GCE_METADATA_HOST", server.host)
        yield server


def fetch(folder: Path) -> list[str]:
    told: list[str] = []
    download(URI, folder, told.append, pause=lambda _: None)
    return told


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


WHOLE = {
    name.removeprefix("copy/llama/"): content
    for name, content in FILES.items()
    if name.startswith("copy/llama/") and not name.endswith("/")
}


def test_a_folder_is_fetched_with_the_machines_account(
    storage: StorageServer, tmp_path: Path
) -> None:
    fetch(tmp_path)
    assert contents(tmp_path) == WHOLE
    assert storage.tokens == {f"Bearer {TOKEN}"}
    assert fetch(tmp_path) == ["downloading 0 files, 0.00 GB"]


def test_a_broken_download_goes_on_and_a_wrong_one_begins_anew(
    storage: StorageServer, tmp_path: Path
) -> None:
    storage.cut["copy/llama/model-1.safetensors"] = 2
    storage.wrong["copy/llama/config.json"] = 2
    fetch(tmp_path)
    assert contents(tmp_path) == WHOLE
    first, second = (int(each[len("bytes=") : -1]) for each in storage.ranges)
    assert 0 < first < second < len(WHOLE["model-1.safetensors"])


@pytest.mark.parametrize(
    ("status", "told"),
    [(403, "needs roles/storage.objectViewer"), (404, "answered 404"), (503, "answered 503")],
)
def test_what_cannot_be_had_says_why(
    storage: StorageServer, tmp_path: Path, status: int, told: str
) -> None:
    storage.refuse = status
    with pytest.raises(VertexError, match=told):
        fetch(tmp_path)
    assert contents(tmp_path) == {}


def test_bytes_that_stay_wrong_are_not_served(storage: StorageServer, tmp_path: Path) -> None:
    storage.wrong["copy/llama/config.json"] = ATTEMPTS
    with pytest.raises(VertexError, match=r"downloading config\.json: Damaged 2 of 2 bytes"):
        fetch(tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_names_that_lead_elsewhere_are_refused(storage: StorageServer, tmp_path: Path) -> None:
    storage.objects["copy/llama/../../escaped"] = b"x"
    with pytest.raises(VertexError, match="leads out of its folder"):
        fetch(tmp_path / "models" / "artifact")
    assert not (tmp_path / "escaped").exists()


def test_an_empty_folder_is_a_fault(storage: StorageServer, tmp_path: Path) -> None:
    storage.objects.clear()
    with pytest.raises(VertexError, match="is empty, or not there"):
        fetch(tmp_path)


def test_the_container_answers_probes_while_it_fetches_and_then_serves(
    storage: StorageServer, tmp_path: Path
) -> None:
    shipped = BundledModel().shipped
    storage.objects = {
        f"copy/llama/{path.relative_to(shipped)}": path.read_bytes()
        for path in shipped.rglob("*")
        if path.is_file()
    }
    storage.gate.clear()
    spec = Spec.model_validate(
        changed(
            deployments__0__artifact="gs://mine/llama",
            deployments__0__environment={
                "SERVED_MODEL_NAME": "llama",
                "ENGINE": "onnx",
                "ONNX_THREADS": 1,
            },
        )
    )
    sent = container(spec, spec.deployments[0])
    assert list(sent.command[:1]) == ["python3"]
    port = free_port()
    environment = {
        **{
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        **{name: os.environ[name] for name in ("STORAGE_EMULATOR_HOST", "GCE_METADATA_HOST")},
        **{each.name: each.value for each in sent.env},
        **aip_environment(port, sent.health_route),
        "AIP_STORAGE_URI": URI,
    }
    log = tmp_path / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, *sent.command[1:]],
            env=environment,
            cwd=tmp_path,
            stdout=out,
            stderr=out,
        )
    try:
        until(lambda: status(port, sent.startup_probe.http_get.path) == 503, process, log)
        storage.gate.set()
        until(lambda: status(port, sent.health_route) == 200, process, log)
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/chat/completions",
            json={"model": "llama", "messages": MESSAGES, "max_tokens": 2},
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == "llama"
    finally:
        process.kill()
        process.wait()


def status(port: int, path: str) -> int:
    """0 where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


def until(condition, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.02)


def test_sigterm_ends_a_container_that_still_fetches(
    storage: StorageServer, tmp_path: Path
) -> None:
    storage.gate.clear()
    port = free_port()
    environment = {**os.environ, "AIP_STORAGE_URI": URI, "AIP_HTTP_PORT": str(port)}
    environment |= {"MODEL_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "deploy.vertex.start"]
    log = tmp_path / "log.txt"
    with log.open("wb") as out:
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    try:
        until(lambda: b"downloading" in log.read_bytes(), process, log)
        with socket.create_connection(("127.0.0.1", port), 10):
            pass
        process.terminate()
        assert process.wait(60) == 143
    finally:
        process.kill()
        process.wait()


def test_outside_vertex_it_says_so(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "deploy.vertex.start"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 1
    assert "run llm-gateway serve" in found.stderr
