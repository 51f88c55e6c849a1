"""The container's side of Cloud Run, against a real gateway with the spec's own environment."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from cloudrun_specs import CPU, changed, loaded
from server_process import PATIENCE_S, ServerProcess

from deploy.cloudrun.service import probes
from deploy.cloudrun.spec import Spec

KEY = "key-of-the-cloud-run-tests"
GRACE_S = 10.0
# A stream that would go on for hours.
ENDLESS = {"text": "word " * 10_000, "itl_s": 0.05, "output_tokens": 100_000}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return loaded(tmp_path_factory.mktemp("spec"), changed(CPU, environment={"ENGINE": "fake"}))


def start(folder: Path, spec: Spec, **options: Any) -> ServerProcess:
    settings = {**spec.full_environment(), "HOST": "127.0.0.1", "API_KEYS": KEY, "PORT": "0"}
    folder.mkdir()
    return ServerProcess(folder, options=options or None, **settings)


@pytest.fixture(scope="module")
def container(spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = start(tmp_path_factory.mktemp("x") / "server", spec, text="Hello.")
    try:
        yield server.wait_ready()
    finally:
        server.kill()


def test_the_probes_are_answered_without_a_key(container: ServerProcess, spec: Spec) -> None:
    for name, probe in probes(spec).items():
        found = httpx.get(f"{container.url}{probe['httpGet']['path']}", timeout=PATIENCE_S)
        assert found.status_code == 200, name


@pytest.mark.parametrize(
    "headers",
    [
        # Cloud Run looks at X-Serverless-Authorization first, and leaves Authorization alone then.
        {"authorization": f"Bearer {KEY}", "x-serverless-authorization": "Bearer ey.id.token"},
        {"authorization": "Bearer ey.id.token", "x-api-key": KEY},
    ],
    ids=["serverless", "x-api-key"],
)
def test_an_identity_token_and_a_key_go_together(
    container: ServerProcess, headers: dict[str, str]
) -> None:
    found = httpx.get(f"{container.url}/v1/models", headers=headers, timeout=PATIENCE_S)
    assert found.status_code == 200
    without = {k: v.replace(KEY, "k" * 20) for k, v in headers.items()}
    assert httpx.get(f"{container.url}/v1/models", headers=without).status_code == 401


def test_sigterm_ends_within_the_grace_with_an_open_stream(spec: Spec, tmp_path: Path) -> None:
    """The stream gets an error event, the process exits by itself with 0. A machine that is busy
    with other things is given three chances to be in time."""
    took = []
    for attempt in range(3):
        server = start(tmp_path / str(attempt), spec, **ENDLESS)
        try:
            took.append(stop_within_a_stream(server.wait_ready()))
        finally:
            server.kill()
        if took[-1] < GRACE_S:
            return
    raise AssertionError(f"Cloud Run kills after {GRACE_S} s, and it took {took}")


def stop_within_a_stream(server: ServerProcess) -> float:
    """Seconds from SIGTERM to the end of the process."""
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=KEY, timeout=PATIENCE_S, max_retries=0
    ) as client:
        stream = client.chat.completions.create(
            model="bundled", messages=[{"role": "user", "content": "Go on."}], stream=True
        )
        next(iter(stream))
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        with pytest.raises(openai.APIError, match="shutting down"):
            for _ in stream:
                pass
    assert server.wait_exit() == 0
    return time.monotonic() - began
