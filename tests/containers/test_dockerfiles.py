"""What the Dockerfiles promise, without running them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from build_context import Context
from dockerfile_steps import Stage, expand, pairs, read_dockerfile
from dry_build import DOCKER, REPOSITORY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway import __version__
from gateway.settings import Settings

DOCKERFILES = sorted(DOCKER.glob("Dockerfile.*"))
IMAGES = [path for path in DOCKERFILES if path.suffix in (".cpu", ".gpu")]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_finds_nothing(path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "--no-color", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint_looks(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian:latest\nRUN cd /tmp && sudo true\n")
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, tmp_path / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "DL3007" in done.stdout


def last(path: Path) -> Stage:
    return read_dockerfile(path)[-1]


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_an_image_is_what_platforms_ask_for(path: Path) -> None:
    stage = last(path)
    assert stage.only("USER").rest == "10001:10001"
    assert stage.only("STOPSIGNAL").rest == "SIGTERM"
    assert stage.only("CMD").argv() == ["llm-gateway", "serve"]
    assert stage.only("VOLUME").argv() == ["/data"]
    assert stage.only("EXPOSE").rest == "8000"
    assert "/health/ready" in stage.only("HEALTHCHECK").rest
    assert next(step.rest for step in stage.steps if step.op == "ARG") == f"VERSION={__version__}"


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_base_images_have_versions_and_can_be_pinned_by_digest(path: Path) -> None:
    for stage in read_dockerfile(path):
        assert re.search(r":v?\d+\.\d+\.\d+", stage.base), stage.base
    digest = f"docker.io/library/python@sha256:{'0' * 64}"
    stages = read_dockerfile(path, {"PYTHON_IMAGE": digest})
    assert stages[0].base == digest


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_every_path_and_setting_of_an_image_is_known(path: Path) -> None:
    env = pairs(last(path).only("ENV").rest, {"PATH": "/bin"})
    known = {name.upper() for name in Settings.model_fields}
    of_others = re.compile(
        "PATH|PYTHON.*|HOME|LOGNAME|TMPDIR|HF_HOME|XDG_.*|VLLM_.*|TORCHINDUCTOR_CACHE_DIR"
        "|TRITON_CACHE_DIR|CUDA_CACHE_PATH|FLASHINFER_WORKSPACE_BASE"
    )
    assert not [name for name in env if name not in known and not of_others.fullmatch(name)]
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        api_keys="key-of-the-container-tests",
        **{k.lower(): v for k, v in env.items() if k in known},
    )
    assert not settings.host.startswith("127.")
    # Docker, Kubernetes and Cloud Run have a /dev/shm that can be written to.
    searched = ("PATH", "PYTHONPATH")
    written = [v for k, v in env.items() if v.startswith("/") and k not in searched]
    for place in written:
        assert f"{place}/".startswith(("/data/", "/dev/shm/")), place


def test_the_model_file_adds_a_model_to_any_image() -> None:
    (stage,) = read_dockerfile(DOCKER / "Dockerfile.model", {"GATEWAY_IMAGE": "x:1"})
    assert stage.base == "x:1"
    assert stage.only("ENV").rest == "MODEL_NAME=/models/model"


def versions_of(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ ;]+)", lock.read_text(), re.MULTILINE))


def test_the_lock_of_the_images_is_that_of_the_tests_and_complete() -> None:
    """The same versions as everywhere else, with all that scale-out needs."""
    image = versions_of(DOCKER / "requirements.txt")
    tested = versions_of(REPOSITORY / "requirements/dev.txt")
    served = versions_of(REPOSITORY / "requirements/serve.txt")
    assert served.items() <= image.items()
    assert {name: tested.get(name, "-") for name in image} == image
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(x) for x in extras["dependencies"]]
    for name in ("redis", "postgres", "otel"):
        wanted += [Requirement(x) for x in extras["optional-dependencies"][name]]
    for each in wanted:
        assert each.specifier.contains(image[canonicalize_name(each.name)]), each


def test_only_what_is_built_from_is_in_the_build_context() -> None:
    context = Context(REPOSITORY)
    for name in (".env", ".git/config", "tests/conftest.py", ".venv/pyvenv.cfg", "docs/api.md"):
        assert context.ignored(name), name
    for name in ("gateway/__pycache__/app.pyc", "deploy/monitoring/x.yaml", "engine/a/b/x.pyc"):
        assert context.ignored(name), name
    for name in ("gateway/app.py", "engine/models/bundled/onnx/model.onnx", "pyproject.toml"):
        assert not context.ignored(name), name


def test_variables_are_expanded_as_docker_does() -> None:
    values = {"A": "1", "EMPTY": ""}
    assert expand("$A ${A} ${B:-2} ${EMPTY:-3} ${A:+4} ${B:+5}.", values) == "1 1 2 3 4 ."
