"""One tritonserver for all tests here, over repositories that the product wrote."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from triton_models import write_encoder, write_lookup, write_net

from deploy.triton.configs import Queueing, Running
from deploy.triton.errors import ServerUnavailable, TritonError
from deploy.triton.kinds import Wishes, plan
from deploy.triton.repository import write_repository
from deploy.triton.server import SHARED_MEMORY, Ports, Server, run_server
from engine.environments import EnvironmentMissing, interpreter

ONE_THREAD = Running(threads=1)
# Long enough for eight clients of a busy machine to meet in one batch.
PATIENT = Queueing(max_batch_size=8, preferred=(8,), delay_us=2_000_000)


@pytest.fixture(scope="session")
def triton_python() -> Path:
    """The Python of the triton environment."""
    try:
        return interpreter("triton")
    except EnvironmentMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small sentence encoder; do not write into it."""
    return write_encoder(tmp_path_factory.mktemp("models") / "encoder")


@pytest.fixture(scope="session")
def repository(
    triton_python: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A repository with the bundled model, an encoder and two plain graphs; do not write there."""
    made = tmp_path_factory.mktemp("repositories")
    net = write_net(made / "source" / "net.onnx", external=True)
    lookup = write_lookup(made / "source" / "lookup.onnx")
    generation = Queueing(priorities=3, max_queue_size=8)
    wanted = (
        ("bundled", Wishes(name="chat", running=ONE_THREAD, slots=2, queueing=generation)),
        (str(encoder), Wishes(name="embed", running=ONE_THREAD)),
        (str(net), Wishes(name="net", running=ONE_THREAD, queueing=PATIENT)),
        (str(lookup), Wishes(name="lookup", running=ONE_THREAD)),
    )
    parts = [part for source, wishes in wanted for part in plan(source, wishes)]
    write_repository(parts, made / "repository", triton_python)
    return made / "repository"


@pytest.fixture(scope="module")
def server(triton_python: Path, repository: Path) -> Iterator[Server]:
    """The server over that repository, every model loaded."""
    try:
        with start(triton_python, repository) as running:
            yield running
        scratch = running.log.parent
        assert not scratch.exists()
        assert not list(SHARED_MEMORY.glob(f"{scratch.name}*"))
    except ServerUnavailable as error:
        pytest.skip(str(error))


@contextmanager
def start(python: Path, repository: Path) -> Iterator[Server]:
    """It binds its ports only once the models are loaded: others may have taken one by then."""
    with ExitStack() as stack:
        for attempt in range(3):
            running = stack.enter_context(run_server(python, repository, Ports.free()))
            try:
                running.wait_ready(300)
                break
            except TritonError:
                if attempt == 2:
                    raise
                stack.close()
        yield running
